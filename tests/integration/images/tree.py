"""A tree on disk as plain facts, for comparing one with another."""

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from minirt.images.snapshots import Overlay
from minirt.linux import mount

IGNORED = ("trusted.overlay.origin", "trusted.overlay.impure", "trusted.overlay.uuid", "security.selinux")

LONG_BYTES = 1 << 16


def facts(top: Path) -> dict[str, dict[str, Any]]:
    """Return name, kind, mode, owner, time (ns), content, links and xattrs of everything below ``top``."""
    found: dict[str, dict[str, Any]] = {}
    inodes: dict[int, str] = {}
    for where, directories, files in os.walk(top):
        directories.sort()
        for path in (Path(where), *(Path(where, name) for name in sorted((*files, *directories)))):
            name = str(path.relative_to(top))
            if name not in found:
                found[name] = _facts(path, name, inodes)
    return found


def _facts(path: Path, name: str, inodes: dict[int, str]) -> dict[str, Any]:
    info = path.lstat()
    keys = [key for key in os.listxattr(path, follow_symlinks=False) if key not in IGNORED]
    return {
        "mode": oct(info.st_mode),
        "owner": (info.st_uid, info.st_gid),
        "mtime_ns": info.st_mtime_ns,
        "size": info.st_size if stat.S_ISREG(info.st_mode) else 0,
        "content": _content(path) if stat.S_ISREG(info.st_mode) else b"",
        "target": os.readlink(path) if path.is_symlink() else "",
        "device": info.st_rdev if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode) else 0,
        "first_link": inodes.setdefault(info.st_ino, name) if not path.is_dir() or path.is_symlink() else "",
        "xattrs": {key: os.getxattr(path, key, follow_symlinks=False) for key in sorted(keys)},
    }


def _content(path: Path) -> bytes:
    """Return what is in a file, or its digest where that is long."""
    data = path.read_bytes()
    return data if len(data) < LONG_BYTES else hashlib.sha256(data).digest()


class Mounted:
    """An overlay mounted on a directory while the block runs."""

    def __init__(self, overlay: Overlay, point: Path) -> None:
        self._overlay = overlay
        self._point = point

    def __enter__(self) -> Path:
        self._point.mkdir(exist_ok=True)
        lowers = ":".join(map(str, self._overlay.lowers))
        data = f"lowerdir={lowers},upperdir={self._overlay.upper},workdir={self._overlay.work}"
        mount.mount("overlay", str(self._point), "overlay", 0, data)
        return self._point

    def __exit__(self, *_: object) -> None:
        mount.umount2(str(self._point))
