from minirt.namespaces.kinds import FLAGS
from minirt.oci.joining import JoinProcess


def test_described_in_the_kernels_words() -> None:
    operation = JoinProcess(3, sum(FLAGS.values()))
    assert operation.describe() == "setns into the namespaces of the container's init"
    assert operation.because == ""
