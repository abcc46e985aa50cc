"""SELinux where the kernel has none.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md#linux-process
"""

from pathlib import Path

import pytest

from tests.contract.oci.container import Container

LABEL = "system_u:system_r:container_t:s0"

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer,
    pytest.mark.skipif(Path("/sys/fs/selinux").exists(), reason="selinux: this kernel has it"),
]


@pytest.mark.differs("crun", "1.8 only says EINVAL")
def test_a_label_is_an_error(container: Container) -> None:
    container.process["selinuxLabel"] = LABEL
    done = container.try_create()
    assert done.returncode != 0
    assert "selinux" in done.stderr.lower()
    assert not container.exists


@pytest.mark.differs("crun", "1.8 takes it")
def test_a_label_is_an_error_for_exec(container: Container) -> None:
    container.create().start()
    assert container.try_exec_process("true", selinuxLabel=LABEL).returncode != 0
    assert container.status() == "running"
