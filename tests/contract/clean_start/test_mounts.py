"""What a container mounts stays in it: the host sees the pins of its namespaces and its /dev/shm, and nothing else."""

import os
from pathlib import Path

import pytest

from tests.command import Minirt
from tests.contract.clean_start import looks

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

POD = """
apiVersion: v1
kind: Pod
metadata: {name: two}
spec:
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 0
  containers:
  - name: one
    image: localhost/busybox
    imagePullPolicy: Never
    command: [sleep, "1000"]
    volumeMounts: [{name: disk, mountPath: /disk}]
  - {name: two, image: localhost/busybox, imagePullPolicy: Never, command: [sleep, "1000"]}
  volumes: [{name: disk, emptyDir: {}}]
"""


def test_the_hosts_mounts_are_shared() -> None:
    """Without this the other tests would prove little: what is private cannot leak."""
    (root,) = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split()[4] == "/"]
    assert "shared:" in root


def pins(minirt: Minirt, *names: str) -> set[Path]:
    """Return where a single sandbox's mounts on the host are."""
    (sandbox,) = minirt.state.glob("sandboxes/*")
    return {sandbox / name for name in names}


def points(mounts: set[looks.Mount]) -> set[Path]:
    return {Path(mount.point) for mount in mounts}


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ((), ("sleep", "1000")),
        (("-v", "/usr:/v:ro", "--read-only"), ("sleep", "1000")),
        (("--privileged",), ("sh", "-c", "mount -t tmpfs leak /tmp && exec sleep 1000")),
    ],
)
def test_a_containers(minirt: Minirt, busybox: str, options: tuple[str, ...], command: tuple[str, ...]) -> None:
    before = set(looks.mounts(os.getpid()))
    minirt.output("run", "-d", "--name", "one", *options, busybox, *command)
    during = set(looks.mounts(os.getpid()))
    assert points(during - before) == pins(minirt, "ns/net", "ns/ipc", "ns/uts", "shm")
    assert during > before
    minirt.output("rm", "-f", "one")
    assert set(looks.mounts(os.getpid())) == before


def test_a_pods(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    before = set(looks.mounts(os.getpid()))
    (tmp_path / "pod.yaml").write_text(POD)
    minirt.output("pod", "run", "-d", tmp_path / "pod.yaml")
    during = set(looks.mounts(os.getpid()))
    assert points(during - before) == pins(minirt, "ns/net", "ns/ipc", "ns/uts", "ns/pid", "shm")
    minirt.output("pod", "rm", "-f", "two")
    assert set(looks.mounts(os.getpid())) == before


def test_what_is_in_sight_inside(minirt: Minirt, busybox: str) -> None:
    """Every mount is one of the container's own: the specification's, and the masks of what is there."""
    points_ = minirt.output("run", "--rm", busybox, "awk", "{print $5}", "/proc/self/mountinfo").split()
    own = {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"}
    given = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
    assert own | given <= set(points_)
    assert all(point.startswith(("/proc/", "/sys/")) for point in set(points_) - own - given)


def test_the_environment_is_the_containers(minirt: Minirt, busybox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the host")
    names = [line.partition("=")[0] for line in minirt.output("run", "--rm", busybox, "env").splitlines()]
    assert sorted(names) == ["HOME", "HOSTNAME", "PATH"]
