"""Descriptors: paths resolved inside a root, writes that the journal sees.

Source: openat2(2), close_range(2).
"""

import contextlib
import errno
import os
from collections.abc import Iterator

from minirt import journal
from minirt.linux._native import lib
from minirt.linux.mount import checked

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
PROC = "/proc/"
PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
RESOLVE_PROC = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS
PROC_SUPER_MAGIC = 0x9FA0
PROC_ROOT_INO = 1


def openat2(dirfd: int, path: str, flags: int, *, mode: int = 0, resolve: int = RESOLVE_IN_ROOT) -> int:
    """Open ``path`` with ``dirfd`` as its root: no symlink and no ``..`` leads out of it.

    Raises OSError: ENOENT, ELOOP, EXDEV (RESOLVE_BENEATH: it leads out; RESOLVE_NO_XDEV: into another mount), EAGAIN
    (a rename raced; retried here).
    """
    for _ in range(128):
        result = lib.rt_openat2(dirfd, os.fsencode(path), flags | os.O_CLOEXEC, mode, resolve)
        if result >= 0:
            return result
        try:
            checked(result, path)
        except BlockingIOError:
            continue
    raise BlockingIOError(11, "the tree kept changing while it was walked", path)


@contextlib.contextmanager
def closing(fd: int) -> Iterator[int]:
    """Close ``fd`` at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)


def mknodat(dirfd: int, path: str, mode: int, major: int, minor: int) -> None:
    """Make a device node. Raises OSError: EEXIST, EPERM (no CAP_MKNOD)."""
    journal.step("mknodat", _mknodat, dirfd, path, mode, major, minor)


def _mknodat(dirfd: int, path: str, mode: int, major: int, minor: int) -> None:
    checked(lib.rt_mknodat(dirfd, path.encode(), mode, major, minor), path)


def read_file(path: str) -> str:
    """Return the text of a kernel file (cgroupfs, procfs). Raises OSError as the kernel gave it.

    By read(2) alone: a file object asks the kernel five more things first.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    parts: list[bytes] = []
    try:
        while part := os.read(fd, 1 << 16):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts).decode()


def write_file(path: str, data: str) -> None:
    """Write a kernel file (cgroupfs, procfs) with one write(2), as these files want it.

    What is below /proc is written to only if it is the kernel's own, and not something mounted over it: a label or a
    sysctl that ends up in another file protects nobody (CVE-2019-16884, CVE-2025-52881).

    Raises OSError as the kernel gave it, with the path as its file name; EXDEV: it is not procfs that is there.
    """
    journal.step("write", _write_file, path, data)


def _write_file(path: str, data: str) -> None:
    fd = open_proc(path, os.O_WRONLY) if path.startswith(PROC) else os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data.encode())
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from error
    finally:
        os.close(fd)


def open_proc(path: str, flags: int) -> int:
    """Open a file below /proc that is procfs's own: no other mount, and no link out of it, is on the way.

    Raises OSError: EXDEV, something else is mounted there; ENOENT.
    """
    with closing(os.open(PROC, PLACE)) as proc:
        if lib.rt_fs_type(proc) != PROC_SUPER_MAGIC or os.fstat(proc).st_ino != PROC_ROOT_INO:
            raise OSError(errno.EXDEV, "what is mounted there is not the kernel's procfs", PROC)
        return openat2(proc, path.removeprefix(PROC).lstrip("/"), flags, resolve=RESOLVE_PROC)


def fs_type(path: str) -> int:
    """Return the kernel's number of the file system that a directory is on. Raises OSError: ENOENT, ENOTDIR."""
    with closing(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
        return checked(lib.rt_fs_type(directory))


def syncfs(fd: int) -> None:
    """Write everything of the file system that ``fd`` is on to its disk. Raises OSError: EIO, ENOSPC, EDQUOT."""
    checked(lib.rt_syncfs(fd))


def mkdir(path: str, mode: int = 0o755) -> None:
    """Make a directory. Raises OSError: EEXIST, ENOENT."""
    journal.step("mkdir", os.mkdir, path, mode)


def rmdir(path: str) -> None:
    """Remove an empty directory (a cgroup: one without processes or children). Raises OSError: EBUSY, ENOENT."""
    journal.step("rmdir", os.rmdir, path)


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor that is not in ``keep``."""
    for first, last in gaps(keep):
        close_range(first, last, 0)


def close_range(first: int, last: int, flags: int) -> None:
    """Close the descriptors from ``first`` to ``last``."""
    checked(lib.rt_close_range(first, last, flags))


def gaps(keep: set[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of every range of descriptors between those in ``keep``."""
    first = 0
    for fd in [*sorted(keep), 0x100000000]:
        if first < fd:
            yield first, fd - 1
        first = fd + 1
