"""The directory a layer is unpacked into: written by descriptor, each parent resolved beneath its root by the kernel.

A name that is there already is replaced, as tar does it; only a directory given twice stays, with the later attributes.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from minirt.images import disk
from minirt.images.marks import OPAQUE_XATTR, WHITEOUT_DEVICE, is_whiteout
from minirt.images.stream import Stream
from minirt.images.tar import Entry
from minirt.linux import fds
from minirt.linux.fds import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS

NOT_OURS_TO_SET = ("trusted.overlay.", "user.overlay.", "security.selinux", "security.ima", "security.evm")
"""Attributes that would steer overlayfs, or that this machine's own policy gives."""

_DIRECTORY = os.O_PATH | os.O_DIRECTORY
_READABLE_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Tree:
    """One layer's directory, and those of the layers below it. All paths are relative to its root."""

    def __init__(self, root: Path, lowers: Sequence[Path] = ()) -> None:
        self.root_fd = os.open(root, _READABLE_DIRECTORY)
        self._lower_fds = [os.open(lower, _DIRECTORY) for lower in lowers]
        self._parent: tuple[str, int] = ("", os.dup(self.root_fd))
        self._times: dict[str, int] = {}
        os.fchmod(self.root_fd, 0o755)

    def close(self) -> None:
        """Close every descriptor."""
        for fd in (self.root_fd, self._parent[1], *self._lower_fds):
            os.close(fd)

    def file(self, parent: str, name: str, entry: Entry, stream: Stream) -> None:
        """Make a regular file from the next ``entry.size`` bytes of ``stream``."""
        parent_fd = self._open(parent)
        _clear(parent_fd, name)
        with fds.closing(os.open(name, _NEW_FILE, 0o600, dir_fd=parent_fd)) as fd:
            _write(fd, entry, stream)
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            for key, value in _xattrs(entry):
                _set_xattr(fd, key, value)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def directory(self, parent: str, name: str, entry: Entry) -> None:
        """Make a directory, or give the one that is there the attributes of ``entry``."""
        parent_fd = self._open(parent)
        if name and not _is_directory(parent_fd, name):
            _make_directory(parent_fd, name)
        with fds.closing(os.open(name or ".", _READABLE_DIRECTORY, dir_fd=parent_fd)) as fd:
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            for key, value in _xattrs(entry):
                _set_xattr(fd, key, value)
        self._times[_joined(parent, name)] = entry.mtime_ns

    def symlink(self, parent: str, name: str, entry: Entry) -> None:
        """Make a symlink; where it points is nobody's business here."""
        parent_fd = self._open(parent)
        _clear(parent_fd, name)
        os.symlink(entry.linkname, name, dir_fd=parent_fd)
        _finish(parent_fd, name, entry)

    def node(self, parent: str, name: str, entry: Entry, kind: int) -> None:
        """Make a device or a FIFO; ``kind`` is one of stat.S_IF*."""
        parent_fd = self._open(parent)
        _clear(parent_fd, name)
        os.mknod(name, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=parent_fd)
        _finish(parent_fd, name, entry)
        os.chmod(name, entry.mode, dir_fd=parent_fd)

    def link(self, parent: str, name: str, target_parent: str, target_name: str) -> None:
        """Make a hardlink to something of this layer.

        Raises:
            OSError: ENOENT (it is not there).
            ValueError: it is a directory.
        """
        parent_fd = self._open(parent)
        with fds.closing(self._resolve(target_parent, _DIRECTORY)) as target_fd:
            target, there = os.lstat(target_name, dir_fd=target_fd), _lstat(parent_fd, name)
            if stat.S_ISDIR(target.st_mode):
                raise ValueError("it links to a directory")
            if not there or not os.path.samestat(target, there):
                _clear(parent_fd, name)
                os.link(target_name, name, src_dir_fd=target_fd, dst_dir_fd=parent_fd, follow_symlinks=False)

    def whiteout(self, parent: str, name: str) -> None:
        """Hide what lies below; what this layer itself has under that name stays, and hides it.

        Where nothing lies below no device is made: a directory that overlayfs need not merge would show it.
        """
        parent_fd = self._open(parent)
        there = _lstat(parent_fd, name)
        if there and stat.S_ISDIR(there.st_mode):
            _set_opaque(parent_fd, name)
        elif not there and self._below(_joined(parent, name)):
            os.mknod(name, stat.S_IFCHR, WHITEOUT_DEVICE, dir_fd=parent_fd)

    def make_opaque(self, path: str) -> None:
        """Hide everything that lies below in a directory, which is made if it is not there."""
        _set_opaque(self._open(path), ".")

    def set_directory_times(self) -> None:
        """Set the mtimes of directories, now that nothing more is written into them."""
        for path, mtime_ns in self._times.items():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                with fds.closing(self._resolve(path, _READABLE_DIRECTORY)) as fd:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))

    def _resolve(self, path: str, flags: int) -> int:
        return fds.openat2(self.root_fd, path or ".", flags, resolve=RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)

    def _open(self, path: str) -> int:
        """Return a descriptor of a directory, made if it is not there; the next call closes it.

        The last one is kept, for entries of one directory follow each other. It cannot grow stale: whatever is
        replaced is replaced by name in its parent, and then the parent is the one that is kept.
        """
        if path != self._parent[0]:
            try:
                fd = self._resolve(path, _DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                fd = self._make_parents(path)
            os.close(self._parent[1])
            self._parent = (path, fd)
        return self._parent[1]

    def _make_parents(self, path: str) -> int:
        """Make what is missing of ``path``; return a descriptor of it."""
        parent = ""
        for name in path.split("/"):
            whole = _joined(parent, name)
            try:
                os.close(self._resolve(whole, _DIRECTORY))
            except (FileNotFoundError, NotADirectoryError):
                with fds.closing(self._resolve(parent, _DIRECTORY)) as parent_fd:
                    self._make_parent(parent_fd, name, whole)
            parent = whole
        return self._resolve(path, _DIRECTORY)

    def _make_parent(self, parent_fd: int, name: str, path: str) -> None:
        """Make a directory that the archive has no entry for, with the attributes it has in the layers below."""
        there = _lstat(parent_fd, name)
        if there and not is_whiteout(there):
            raise ValueError(f"its parent {path!r} is no directory of this layer")
        _make_directory(parent_fd, name)
        below = self._below(path)
        if below and stat.S_ISDIR(below.st_mode):
            os.chown(name, below.st_uid, below.st_gid, dir_fd=parent_fd)
            os.chmod(name, stat.S_IMODE(below.st_mode), dir_fd=parent_fd)
            self._times.setdefault(path, below.st_mtime_ns)

    def _below(self, path: str) -> os.stat_result | None:
        """Return what the layers below have at ``path``, None for nothing. No symlink is followed, as in overlayfs.

        What an opaque directory hides counts as being there: a whiteout too many does no harm.
        """
        for lower_fd in self._lower_fds:
            try:
                found = stat_straight(lower_fd, path)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    return None
                raise
            return None if is_whiteout(found) else found
        return None


def stat_straight(root_fd: int, path: str) -> os.stat_result:
    """Return what is at ``path`` below a directory. Raises OSError: ENOENT; ELOOP or ENOTDIR, a parent is none."""
    resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
    with fds.closing(fds.openat2(root_fd, path, os.O_PATH | os.O_NOFOLLOW, resolve=resolve)) as fd:
        return os.fstat(fd)


def _joined(parent: str, name: str) -> str:
    return f"{parent}/{name}" if parent else name


def _lstat(parent_fd: int, name: str) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=parent_fd)
    except FileNotFoundError:
        return None


def _is_directory(parent_fd: int, name: str) -> bool:
    there = _lstat(parent_fd, name)
    return there is not None and stat.S_ISDIR(there.st_mode)


def _clear(parent_fd: int, name: str) -> bool:
    """Remove what has this name; say whether that was a whiteout."""
    there = _lstat(parent_fd, name)
    if there is None:
        return False
    if stat.S_ISDIR(there.st_mode):
        disk.remove_tree(name, dir_fd=parent_fd)
    else:
        os.unlink(name, dir_fd=parent_fd)
    return is_whiteout(there)


def _make_directory(parent_fd: int, name: str) -> None:
    """Make a directory in place of what has its name; in place of a whiteout it goes on hiding what lies below."""
    was_hidden = _clear(parent_fd, name)
    os.mkdir(name, 0o755, dir_fd=parent_fd)
    os.chmod(name, 0o755, dir_fd=parent_fd)
    if was_hidden:
        _set_opaque(parent_fd, name)


def _set_opaque(parent_fd: int, name: str) -> None:
    with fds.closing(os.open(name, _READABLE_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)) as fd:
        os.setxattr(fd, OPAQUE_XATTR, b"y")


def _write(fd: int, entry: Entry, stream: Stream) -> None:
    stretches = entry.layout.stretches if entry.layout else ((0, entry.size),)
    for offset, length in stretches:
        os.lseek(fd, offset, os.SEEK_SET)
        for piece in stream.pieces(length):
            while piece:
                piece = piece[os.write(fd, piece) :]  # noqa: PLW2901
    if entry.layout:
        os.ftruncate(fd, entry.layout.size_bytes)


def _finish(parent_fd: int, name: str, entry: Entry) -> None:
    """Give owner, xattrs and time to something that cannot be opened: a symlink, a device."""
    os.chown(name, entry.uid, entry.gid, dir_fd=parent_fd, follow_symlinks=False)
    for key, value in _xattrs(entry):
        _set_xattr(f"/proc/self/fd/{parent_fd}/{name}", key, value)
    os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent_fd, follow_symlinks=False)


def _xattrs(entry: Entry) -> list[tuple[str, bytes]]:
    return [item for item in entry.xattrs.items() if not item[0].startswith(NOT_OURS_TO_SET)]


def _set_xattr(where: int | str, key: str, value: bytes) -> None:
    """Set an xattr on a descriptor or a path; a file system that has none of that kind goes without, as in docker."""
    try:
        os.setxattr(where, key, value, **({} if isinstance(where, int) else {"follow_symlinks": False}))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP and not (error.errno == errno.EPERM and key.startswith("user.")):
            raise
