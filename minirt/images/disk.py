"""Files that outlive a crash: the old or the new, never half of it; locks that end with their holder; removal.

Source: rename(2), fsync(2), flock(2), unlinkat(2).
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


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
    fd = os.open(target.parent, _DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def flocked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock on a directory or a file (which is made) against other processes and other threads.

    ``shared``: against those only who want it alone.
    """
    fd = os.open(path, _DIRECTORY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def is_flocked(path: Path) -> bool:
    """Say whether somebody holds a lock on a directory or a file. Raises OSError: ENOENT, it is not there."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def usage_bytes(path: Path) -> int:
    """Return how much of the disk a file or a directory takes with all that is in it; each inode counts once."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    blocks = {found.st_ino: found.st_blocks}
    for *_, fd in os.fwalk(path) if path.is_dir() else ():
        with os.scandir(fd) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    info = entry.stat(follow_symlinks=False)
                    blocks[info.st_ino] = info.st_blocks
    return sum(blocks.values()) * 512


def remove_tree(path: str | Path, dir_fd: int | None = None) -> None:
    """Remove a directory with all that is in it, however deep; no symlink is followed.

    A container or a layer can nest directories deeper than any recursion, and than a path can be long. So each
    directory found inside is first moved up to the top, and no more than two are open at any time.

    Raises:
        OSError: ENOENT, it is not there, or another is removing it too; ENOTEMPTY, somebody adds to it.
    """
    top = os.open(path, _DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        moved = f"{os.urandom(8).hex()}-"
        count = _move_up(top, top, moved, 0)
        while names := os.listdir(top):
            for name in names:
                count = _empty(name, top, moved, count)
    finally:
        os.close(top)
    os.rmdir(path, dir_fd=dir_fd)


def _empty(name: str, top: int, moved: str, count: int) -> int:
    inner = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    try:
        count = _move_up(inner, top, moved, count)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=top)
    return count


def _move_up(source: int, top: int, moved: str, count: int) -> int:
    """Unlink the files of a directory, move its directories to ``top``; return how many have been moved by now."""
    with os.scandir(source) as children:
        for child in list(children):
            if not child.is_dir(follow_symlinks=False):
                os.unlink(child.name, dir_fd=source)
            elif source != top:
                os.rename(child.name, f"{moved}{count}", src_dir_fd=source, dst_dir_fd=top)
                count += 1
    return count
