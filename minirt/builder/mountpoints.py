"""What a container's start leaves in its upper directory, and is not the image's: what things are mounted on.

Before the command runs /proc, /dev, /etc/hosts and others have been made where the image has none. Afterwards those
that are still as they were, empty, go again.
"""

import os
import stat
from pathlib import Path

Mark = tuple[int, int, int, int, int]
"""Inode, type and mode, owner, group, size in bytes (of a file)."""


def look(upper: Path) -> dict[str, Mark]:
    """Return what is in an upper directory, parents first."""
    found = {}
    for where, directories, files in os.walk(upper):
        for name in (*directories, *files):
            path = os.path.join(where, name)
            found[path] = _mark(path)
    return found


def remove(before: dict[str, Mark]) -> None:
    """Remove what was there ``before``, is the same, and is empty: the deepest first."""
    for path, mark in reversed(before.items()):
        try:
            if _mark(path) != mark:
                continue
            if stat.S_ISDIR(mark[1]):
                os.rmdir(path)
            elif mark[4] == 0:
                os.unlink(path)
        except OSError:
            continue  # it is gone, or a directory that has something in it now


def _mark(path: str) -> Mark:
    info = os.lstat(path)
    size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
    return info.st_ino, info.st_mode, info.st_uid, info.st_gid, size
