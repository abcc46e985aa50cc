"""What is below /proc is written to only where it is procfs: tried in a mount namespace that ends with its process."""

import errno
import os
from pathlib import Path

import pytest

from minirt.linux import fds, mount, process

pytestmark = pytest.mark.root

FILE = "/proc/sys/net/core/somaxconn"


def written(cover: str, source: Path, fstype: str | None) -> int:
    """Return the errno with which a sysctl of a new network is written, where something covers part of /proc."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            process.unshare(process.CLONE_NEWNS | process.CLONE_NEWNET)
            mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
            if cover:
                mount.mount(str(source), cover, fstype, 0 if fstype else mount.MS_BIND)
            fds.write_file(FILE, "77")
            code = 0 if Path(FILE).read_text() == "77\n" else 254
        except OSError as error:
            code = error.errno or 253
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_kernels_own(tmp_path: Path) -> None:
    assert written("", tmp_path, None) == 0


@pytest.mark.parametrize("cover", ["/proc", "/proc/sys", "/proc/sys/net/core"])
def test_a_directory_of_somebody_elses(tmp_path: Path, cover: str) -> None:
    fake = tmp_path / Path(FILE).relative_to(cover)
    fake.parent.mkdir(parents=True, exist_ok=True)
    fake.write_text("untouched\n")
    assert written(cover, tmp_path, None) == errno.EXDEV
    assert fake.read_text() == "untouched\n"


def test_a_file_of_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "fake").write_text("untouched\n")
    assert written(FILE, tmp_path / "fake", None) == errno.EXDEV
    assert (tmp_path / "fake").read_text() == "untouched\n"


def test_another_file_of_procfs(tmp_path: Path) -> None:
    """As it was done to runc: what is mounted there is procfs, too, and yet something else."""
    assert written(FILE, Path("/proc/sys/kernel/ostype"), None) == errno.EXDEV


def test_a_part_of_procfs_as_the_whole(tmp_path: Path) -> None:
    assert written("/proc", Path("/proc/sys"), None) == errno.EXDEV


def test_a_file_system_of_another_kind(tmp_path: Path) -> None:
    assert written("/proc", tmp_path, "tmpfs") == errno.EXDEV
