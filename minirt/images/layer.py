"""A directory becomes a layer: the upper directory of an overlay, written as the tar archive that OCI wants.

    upper directory                                layer.tar
    name: a character device 0:0                   .wh.name              (hides what lies below)
    dir: trusted.overlay.opaque=y                  dir, dir/.wh..wh..opq (hides all that lies below in it)
    dir: copied up, something in it changed        dir, with the attributes it has now
    two names of one inode                         the first in full, the other a hardlink to it
    a socket                                       left out: tar has none

The same directory gives the same bytes: names in the order of their bytes, no user names, times to the nanosecond.

Source: https://github.com/opencontainers/image-spec/blob/main/layer.md; the kernel's filesystems/overlayfs.rst
"""

import errno
import hashlib
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple, cast

from minirt.errors import ImageError
from minirt.images.make import store_layer
from minirt.images.manifest import Descriptor
from minirt.images.marks import OPAQUE_XATTR, is_whiteout
from minirt.images.tar import XATTR
from minirt.images.tree import NOT_OURS_TO_SET
from minirt.images.unpack import OPAQUE, WHITEOUT
from minirt.images.workspace import REMEDIES, Workspace

PIECE_BYTES = 1 << 20
REFERRING = ("trusted.overlay.redirect", "trusted.overlay.metacopy")
"""Attributes of an upper directory that refer to the layers below: with them it does not stand for itself."""
TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


class Layer(NamedTuple):
    """A stored layer: its blob, and the digest of the archive before it was compressed."""

    descriptor: Descriptor
    diff_id: str


def commit(upper: Path, job: Workspace, below: Path | None = None) -> Layer:
    """Store an overlay's upper directory as a layer, compressed with gzip. Nobody may write to it meanwhile.

    ``below`` is the topmost lower directory: where the root's owner or mode differ from its, the layer says so.

    Raises:
        ImageError: it cannot be read, or stored (disk full).
    """
    packed = job.path / f"layer-{os.urandom(8).hex()}.tar.gz"
    try:
        with packed.open("wb") as raw, _gzip(raw) as out:
            hashing = _Hashing(out)
            pack(upper, cast(IO[bytes], hashing), overlay=True, root=_root_differs(upper, below))
        with packed.open("rb") as file:
            descriptor = store_layer(iter(lambda: file.read(PIECE_BYTES), b""), job)
    except OSError as error:
        why = error.strerror or str(error)
        raise ImageError(f"make a layer of {upper}", why, REMEDIES.get(error.errno or 0, "")) from error
    finally:
        packed.unlink(missing_ok=True)
    return Layer(descriptor, f"sha256:{hashing.seen.hexdigest()}")


def _gzip(raw: IO[bytes]) -> IO[bytes]:
    """Return a file that compresses into ``raw``, without a name or a time in its header."""
    from isal import igzip

    return cast(IO[bytes], igzip.IGzipFile("", "wb", 1, raw, 0))  # type: ignore[no-untyped-call]


class _Hashing:
    """A file that hashes what is written to it, and passes it on."""

    def __init__(self, out: IO[bytes]) -> None:
        self.seen = hashlib.sha256()
        self._out = out

    def write(self, data: bytes) -> int:
        self.seen.update(data)
        return self._out.write(data)


def _root_differs(upper: Path, below: Path | None) -> bool:
    if below is None:
        return False
    here, there = os.lstat(upper), os.lstat(below)
    return (here.st_mode, here.st_uid, here.st_gid) != (there.st_mode, there.st_uid, there.st_gid)


def pack(
    top: Path, out: IO[bytes], *, overlay: bool, root: bool = True, without: Callable[[str], bool] | None = None
) -> None:
    """Write a directory (or what a symlink leads to) as a tar archive. ``overlay``: an upper one. ``root``: itself too.

    ``without`` says which paths, relative to it, to leave out.

    Raises:
        OSError: it cannot be read, or ``out`` not written.
        ImageError: an upper directory that does not stand for itself (see ``REFERRING``).
    """
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar:
        writer = _Writer(tar, overlay=overlay)
        for where, directories, files, fd in os.fwalk(f"{top}/."):
            prefix = os.path.relpath(where, top)
            if prefix == ".":
                prefix = ""
                if root:
                    writer.add(".", ".", fd)
            paths = {name: os.path.join(prefix, name) for name in (*directories, *files)}
            kept = {name: path for name, path in paths.items() if not (without and without(path))}
            directories[:] = sorted((name for name in directories if name in kept), key=os.fsencode)
            for name in sorted(kept, key=os.fsencode):
                writer.add(kept[name], name, fd)


class _Writer:
    """One archive being written."""

    def __init__(self, tar: tarfile.TarFile, *, overlay: bool) -> None:
        self._tar = tar
        self._overlay = overlay
        self._links: dict[tuple[int, int], str] = {}

    def add(self, path: str, name: str, parent_fd: int) -> None:
        """Add what ``name`` is in ``parent_fd``, as ``path``; a file's content, not a directory's."""
        found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        if self._overlay and is_whiteout(found):
            parent, _, hidden = path.rpartition("/")
            self._add_mark(os.path.join(parent, WHITEOUT + hidden))
        elif stat.S_IFMT(found.st_mode) in TYPES:
            xattrs = _xattrs(f"/proc/self/fd/{parent_fd}/{name}")
            self._check(path, xattrs)
            self._add(path, name, parent_fd, found, xattrs)
            if self._overlay and xattrs.get(OPAQUE_XATTR) == b"y" and stat.S_ISDIR(found.st_mode):
                self._add_mark(os.path.join(path, OPAQUE))

    def _check(self, path: str, xattrs: dict[str, bytes]) -> None:
        if self._overlay and path.rpartition("/")[2].startswith(WHITEOUT):
            why = f"in a layer a name that begins with {WHITEOUT} hides another"
            raise ImageError(f"make a layer of {path}", why, "rename it")
        for key in REFERRING:
            if self._overlay and key in xattrs:
                do = "mount without redirect_dir and metacopy: echo N > /sys/module/overlay/parameters/redirect_dir"
                raise ImageError(f"make a layer of {path}", f"it refers to a layer below ({key})", do)

    def _add_mark(self, path: str) -> None:
        info = tarfile.TarInfo(path)
        info.mode = 0
        self._tar.addfile(info)

    def _add(self, path: str, name: str, parent_fd: int, found: os.stat_result, xattrs: dict[str, bytes]) -> None:
        info = _header(path, found, xattrs)
        first = self._links.setdefault((found.st_dev, found.st_ino), path)
        if first != path and not stat.S_ISDIR(found.st_mode):
            info.type, info.linkname = tarfile.LNKTYPE, first
        elif stat.S_ISLNK(found.st_mode):
            info.linkname = os.readlink(name, dir_fd=parent_fd)
        elif stat.S_ISREG(found.st_mode):
            info.size = found.st_size
            with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent_fd), "rb") as content:
                self._tar.addfile(info, content)
            return
        self._tar.addfile(info)


def _header(path: str, found: os.stat_result, xattrs: dict[str, bytes]) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type = TYPES[stat.S_IFMT(found.st_mode)]
    info.mode, info.uid, info.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
    info.mtime = found.st_mtime_ns // 10**9
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        info.devmajor, info.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
    headers = {}
    if found.st_mtime_ns % 10**9 or found.st_mtime_ns < 0:
        sign, magnitude = "-" if found.st_mtime_ns < 0 else "", abs(found.st_mtime_ns)
        headers["mtime"] = f"{sign}{magnitude // 10**9}.{magnitude % 10**9:09}"
    for key, value in xattrs.items():
        if not key.startswith(NOT_OURS_TO_SET):
            headers[XATTR + key] = value.decode(errors="surrogateescape")
    info.pax_headers = headers
    return info


def _xattrs(path: str) -> dict[str, bytes]:
    try:
        keys = sorted(os.listxattr(path, follow_symlinks=False))
        return {key: os.getxattr(path, key, follow_symlinks=False) for key in keys}
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise
