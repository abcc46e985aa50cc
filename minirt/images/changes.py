"""What a container has changed of its image, as ``docker diff`` tells it: A added, C changed, D deleted.

Of a directory only its mode and its owner count; one in which something has changed has changed itself. What a file is
at is told by its attributes, not by its content.

Source: moby's pkg/archive/changes.go
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

from minirt.images.marks import is_opaque, is_whiteout
from minirt.images.snapshots import Overlay
from minirt.images.tree import stat_straight
from minirt.images.view import view


class Change(Struct, frozen=True, order=True):
    """One change; ``path`` begins with a slash."""

    path: str
    kind: Literal["A", "C", "D"]


def is_mount_point(overlay: Overlay, destinations: set[str]) -> Callable[[str], bool]:
    """Return what says of a path in the upper directory whether it was made only to mount something on it.

    Those are empty. ``destinations`` are relative to the root.
    """

    def check(path: str) -> bool:
        if path not in destinations:
            return False
        found = overlay.upper / path
        try:
            status = found.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        if stat.S_ISDIR(status.st_mode):
            return not any(found.iterdir())
        return stat.S_ISREG(status.st_mode) and status.st_size == 0

    return check


def changes(overlay: Overlay, without: Callable[[str], bool]) -> list[Change]:
    """Return the changes in the order of their paths. Raises OSError."""
    with view(overlay.lowers) as image:
        fd = os.open(image, os.O_PATH | os.O_DIRECTORY)
        try:
            return sorted(_below(overlay.upper, "", fd, without))
        finally:
            os.close(fd)


def _below(upper: Path, parent: str, image_fd: int, without: Callable[[str], bool]) -> Iterator[Change]:
    directory = upper / parent
    names = set(os.listdir(directory))
    for name in names:
        path = f"{parent}/{name}" if parent else name
        if not without(path):
            yield from _of(upper, path, image_fd, without)
    if is_opaque(directory):
        yield from (Change(f"/{parent}/{name}", "D") for name in _names(image_fd, parent) - names)


def _of(upper: Path, path: str, image_fd: int, without: Callable[[str], bool]) -> Iterator[Change]:
    now, before = (upper / path).lstat(), _before(image_fd, path)
    if is_whiteout(now):
        if before:
            yield Change(f"/{path}", "D")
        return
    inside = list(_below(upper, path, image_fd, without)) if stat.S_ISDIR(now.st_mode) else []
    yield from inside
    if before is None:
        yield Change(f"/{path}", "A")
    elif inside or _differ(before, now):
        yield Change(f"/{path}", "C")


def _before(image_fd: int, path: str) -> os.stat_result | None:
    try:
        return stat_straight(image_fd, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == 40:  # ELOOP: a parent was a symlink
            return None
        raise


def _names(image_fd: int, path: str) -> set[str]:
    before = _before(image_fd, path or ".")
    if before is None or not stat.S_ISDIR(before.st_mode):
        return set()
    return set(os.listdir(f"/proc/self/fd/{image_fd}/{path}"))


def _differ(before: os.stat_result, now: os.stat_result) -> bool:
    fields = ["st_mode", "st_uid", "st_gid", "st_rdev"]
    if not stat.S_ISDIR(now.st_mode):
        fields += ["st_mtime_ns", "st_size"]
    return any(getattr(before, field) != getattr(now, field) for field in fields)
