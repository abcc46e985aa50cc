"""Writing so that a crash at any point leaves the old or the new, and locks that end with their holder.

Source: rename(2), fsync(2), flock(2).
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def replace(path: Path, data: bytes) -> None:
    """Write a file whole: to a temporary name, to the disk, then renamed. The caller is the only one to write it."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    move(new, path)


def move(source: Path, target: Path) -> None:
    """Rename, and have the new name on the disk before returning. What is renamed must be on the disk already.

    Raises:
        OSError: ENOTEMPTY or EEXIST, ``target`` is a directory that is not empty; the others of rename(2).
    """
    source.rename(target)
    fd = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def flocked(path: Path) -> Iterator[None]:
    """Hold a lock on a directory or a file (which is made) against other processes and other threads."""
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def is_flocked(path: Path) -> bool:
    """Say whether somebody holds a lock on a directory or a file."""
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    kind = os.O_RDONLY | os.O_DIRECTORY if path.is_dir() else os.O_RDWR | os.O_CREAT
    return os.open(path, kind | os.O_CLOEXEC, 0o600)
