"""A directory becomes a tar archive: with every attribute that a layer can have, in the order of its names.

An overlay's upper directory becomes a layer: overlayfs' marks of what is deleted take the form they have in layers.

    upper directory                     layer.tar
    name: a character device 0:0        .wh.name
    dir: trusted.overlay.opaque=y       dir, and .wh..wh..opq in it
"""

import errno
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

from minirt.errors import Unsupported
from minirt.images.marks import is_opaque, is_whiteout
from minirt.images.tar import XATTR
from minirt.images.tree import NOT_OURS_TO_SET
from minirt.images.unpack import OPAQUE, WHITEOUT

STEERING = ("trusted.overlay.redirect", "trusted.overlay.metacopy")
"""Marks of what lies elsewhere in the stack: overlayfs makes them only where the kernel was told to."""


def pack(
    directory: Path, target: IO[bytes], *, as_layer: bool = False, without: Callable[[str], bool] | None = None
) -> None:
    """Write what is in a directory to ``target``, which need not be seekable.

    ``as_layer``: it is an overlay's upper directory. ``without`` says which paths, relative to it, to leave out.

    Raises:
        OSError: it cannot be read or written.
        Unsupported: an upper directory in which the kernel has only pointed at what it has renamed.
    """
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path, name in _found(directory, without):
            _add(tar, path, name, as_layer=as_layer)


def _found(directory: Path, without: Callable[[str], bool] | None) -> Iterator[tuple[str, str]]:
    """Yield (where it is, its name in the archive) of all that is to be in it. ``directory`` may be a symlink."""
    yield f"{directory}/.", "."
    for where, directories, files in os.walk(directory):
        inside = os.path.relpath(where, directory)
        names = {name: name if inside == "." else f"{inside}/{name}" for name in sorted((*directories, *files))}
        left_out = {name for name, path in names.items() if without and without(path)}
        directories[:] = sorted(set(directories) - left_out)
        for name, path in names.items():
            if name not in left_out:
                yield f"{where}/{name}", path


def _add(tar: tarfile.TarFile, path: str, name: str, *, as_layer: bool) -> None:
    """Add one file with its xattrs and its time to the nanosecond. Sockets are left out: tar has none."""
    found = os.lstat(path)
    if as_layer and is_whiteout(found):
        _add_mark(tar, f"{os.path.dirname(name)}/{WHITEOUT}{os.path.basename(name)}", found)
        return
    info = cast("tarfile.TarInfo | None", tar.gettarinfo(path, name))
    if info is None:
        return
    seconds, nanoseconds = divmod(found.st_mtime_ns, 10**9)
    info.pax_headers = {"mtime": f"{seconds}.{nanoseconds:09}", **_xattrs(path, as_layer)}
    info.uname, info.gname = "", ""
    if info.isreg():
        with open(path, "rb") as content:
            tar.addfile(info, content)
    else:
        tar.addfile(info)
    if as_layer and stat.S_ISDIR(found.st_mode) and is_opaque(Path(path)):
        _add_mark(tar, f"{name}/{OPAQUE}", found)


def _add_mark(tar: tarfile.TarFile, name: str, found: os.stat_result) -> None:
    info = tarfile.TarInfo(name.lstrip("/"))
    info.mtime, info.mode = int(found.st_mtime), 0o600
    tar.addfile(info)


def _xattrs(path: str, as_layer: bool) -> dict[str, str]:
    try:
        keys = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise
    if as_layer and not set(STEERING).isdisjoint(keys):
        do = "see redirect_dir and metacopy in /sys/module/overlay/parameters"
        raise Unsupported(f"pack {path}", "the kernel has not copied it, but pointed at what it was", do)
    kept = [key for key in keys if not key.startswith(NOT_OURS_TO_SET)]
    return {XATTR + key: os.getxattr(path, key, follow_symlinks=False).decode(errors="surrogateescape") for key in kept}
