"""Files on their way into a layer: found in a source, told apart by content, copied into a target.

Source and target are directories by their descriptors, and every path is resolved in its own (RESOLVE_IN_ROOT): neither
a symlink of the build's directory nor one of an image leads out of it.

Source: https://docs.docker.com/reference/dockerfile/#copy; openat2(2)
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from typing import NamedTuple

from minirt.builder.ignore import Ignore, translated
from minirt.images.tree import NOT_OURS_TO_SET
from minirt.linux import fds

_PATH = os.O_PATH
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_WILD = re.compile(r"[*?\[]")


class Owner(NamedTuple):
    """Who a copy belongs to."""

    uid: int
    gid: int


class Found(NamedTuple):
    """A file: its path in the source, and below the directory that is copied ("" for what was named itself)."""

    path: str
    inner: str
    info: os.stat_result


class Source:
    """A directory to copy from. ``keeps_owners``: a copy belongs to whom the original did, if it is not said.

    Where it does not, a setuid program would be another's: it is no such program then, as with docker and podman.
    """

    def __init__(self, root_fd: int, ignore: Ignore | None = None, *, keeps_owners: bool = False) -> None:
        self.root_fd = root_fd
        self.keeps_owners = keeps_owners
        self.modes = 0o7777 if keeps_owners else 0o1777
        self._ignore = ignore or Ignore()

    def named(self, pattern: str) -> list[str]:
        """Return the paths that a word names, which may have wildcards; none where it names nothing."""
        path = os.path.normpath("/" + pattern).lstrip("/") or "."
        if not _WILD.search(path):
            return [path] if self._is_there(path) else []
        parts = path.split("/")
        fixed = next(count for count, part in enumerate(parts) if _WILD.search(part))
        return sorted(self._matching("/".join(parts[:fixed]), parts[fixed:]))

    def _matching(self, parent: str, parts: list[str]) -> Iterator[str]:
        fits = re.compile(translated(parts[0]))
        for name in self._names(parent or "."):
            path = os.path.join(parent, name)
            if not fits.fullmatch(name):
                continue
            if len(parts) > 1:
                yield from self._matching(path, parts[1:])
            elif self._is_there(path):
                yield path

    def _is_there(self, path: str) -> bool:
        """Say whether there is such a thing; a directory is, if something in it may be seen."""
        if path != "." and self._ignore.hides(path) and not self._ignore.has_exceptions:
            return False
        with contextlib.suppress(OSError), fds.closing(fds.openat2(self.root_fd, path, _PATH)) as fd:
            is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
            return not self._ignore.hides(path) or (is_directory and any(self.walk(path)))
        return False

    def _names(self, path: str) -> list[str]:
        try:
            with fds.closing(fds.openat2(self.root_fd, path, _DIRECTORY)) as fd:
                return sorted(os.listdir(fd), key=os.fsencode)
        except NotADirectoryError:
            return []
        except FileNotFoundError:
            return []

    def walk(self, path: str) -> Iterator[Found]:
        """Yield what a path names, a symlink followed; of a directory all that is in it, parents first, sorted."""
        with fds.closing(fds.openat2(self.root_fd, path, _PATH)) as fd:
            info = os.fstat(fd)
        if path == "." or not self._ignore.hides(path):
            yield Found(path, "", info)
        if stat.S_ISDIR(info.st_mode):
            yield from self._inside(path, "")

    def _inside(self, path: str, inner: str) -> Iterator[Found]:
        for name in self._names(path):
            child, below = os.path.normpath(f"{path}/{name}"), os.path.join(inner, name)
            info = self._lstat(child)
            is_hidden = self._ignore.hides(child)
            if not is_hidden and not stat.S_ISSOCK(info.st_mode):
                yield Found(child, below, info)
            if stat.S_ISDIR(info.st_mode) and (not is_hidden or self._ignore.has_exceptions):
                yield from self._inside(child, below)

    def _lstat(self, path: str) -> os.stat_result:
        with fds.closing(fds.openat2(self.root_fd, path, _PATH | os.O_NOFOLLOW)) as fd:
            return os.fstat(fd)

    def read(self, found: Found) -> int:
        """Return a descriptor of a regular file's content."""
        flags = os.O_RDONLY | (os.O_NOFOLLOW if found.inner else 0)
        return fds.openat2(self.root_fd, found.path, flags)

    def link(self, found: Found) -> str:
        """Return where a symlink points."""
        with fds.closing(fds.openat2(self.root_fd, found.path, _PATH | os.O_NOFOLLOW)) as fd:
            return os.readlink("", dir_fd=fd)

    def digest(self, paths: list[str]) -> str:
        """Return what tells the content of these paths from any other: names, modes, content; no times."""
        seen = hashlib.sha256()
        for path in paths:
            for found in self.walk(path):
                owner = (found.info.st_uid, found.info.st_gid) if self.keeps_owners else ()
                seen.update(repr((os.path.basename(path), found.inner, found.info.st_mode, owner)).encode())
                if stat.S_ISREG(found.info.st_mode):
                    with os.fdopen(self.read(found), "rb") as file:
                        seen.update(hashlib.file_digest(file, "sha256").digest())
                elif stat.S_ISLNK(found.info.st_mode):
                    seen.update(os.fsencode(self.link(found)))
        return seen.hexdigest()


class Target:
    """A directory to copy into."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd

    def is_directory(self, path: str) -> bool:
        """Say whether there is a directory at ``path``, a symlink followed."""
        with contextlib.suppress(OSError):
            os.close(fds.openat2(self._root_fd, path, _PATH | os.O_DIRECTORY))
            return True
        return False

    def make(self, path: str, owner: Owner) -> None:
        """Make a directory with the parents that are missing, 0755. Raises OSError: ENOTDIR, EEXIST."""
        above = ""
        for name in [part for part in path.split("/") if part not in ("", ".")]:
            above = os.path.join(above, name)
            if not self.is_directory(above):
                with self._parent(above) as (parent_fd, last):
                    os.mkdir(last, 0o755, dir_fd=parent_fd)
                    os.chown(last, *owner, dir_fd=parent_fd)
                    os.chmod(last, 0o755, dir_fd=parent_fd)

    def copy(self, source: Source, path: str, target: str, owner: Owner | None, mode: int | None) -> None:
        """Copy what ``path`` names to ``target``: a file to it, a directory's content into it.

        ``owner`` None: root, or whose it was, as the source has it. ``mode`` is for all but symlinks.

        Raises:
            OSError: ENOTDIR, EISDIR: something else is there.
        """
        times = []
        for found in source.walk(path):
            where = os.path.normpath(f"{target}/{found.inner}") if found.inner else target
            whose = owner or (Owner(found.info.st_uid, found.info.st_gid) if source.keeps_owners else Owner(0, 0))
            if not found.inner:
                self.make(where if stat.S_ISDIR(found.info.st_mode) else os.path.dirname(where), owner or Owner(0, 0))
            if not stat.S_ISDIR(found.info.st_mode):
                self._file(source, found, where, whose, mode)
            elif found.inner:
                self._directory(source, found, where, whose, mode)
                times.append((where, found.info.st_mtime_ns))
        for where, mtime_ns in reversed(times):
            with fds.closing(fds.openat2(self._root_fd, where, _DIRECTORY)) as fd:
                os.utime(fd, ns=(mtime_ns, mtime_ns))

    def _directory(self, source: Source, found: Found, where: str, owner: Owner, mode: int | None) -> None:
        """Make a directory, or give the one that is there what the original has."""
        with self._parent(where) as (parent_fd, name):
            try:
                os.mkdir(name, 0o700, dir_fd=parent_fd)
            except FileExistsError:
                if not self.is_directory(where):
                    raise NotADirectoryError(errno.ENOTDIR, "it is no directory", where) from None
        with fds.closing(fds.openat2(self._root_fd, where, _DIRECTORY)) as fd:
            os.fchown(fd, *owner)
            os.fchmod(fd, stat.S_IMODE(found.info.st_mode) if mode is None else mode)
            with fds.closing(fds.openat2(source.root_fd, found.path, _DIRECTORY)) as original:
                _copy_xattrs(original, fd)

    def _file(self, source: Source, found: Found, where: str, owner: Owner, mode: int | None) -> None:
        info = found.info
        with self._parent(where) as (parent_fd, name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent_fd)
            if stat.S_ISLNK(info.st_mode):
                os.symlink(source.link(found), name, dir_fd=parent_fd)
            elif stat.S_ISREG(info.st_mode):
                self._content(source, found, parent_fd, name, owner, mode)
            else:
                os.mknod(name, info.st_mode, info.st_rdev, dir_fd=parent_fd)
            if not stat.S_ISREG(info.st_mode):
                os.chown(name, *owner, dir_fd=parent_fd, follow_symlinks=False)
            os.utime(name, ns=(info.st_mtime_ns, info.st_mtime_ns), dir_fd=parent_fd, follow_symlinks=False)

    def _content(self, source: Source, found: Found, parent_fd: int, name: str, owner: Owner, mode: int | None) -> None:
        new = os.open(name, _NEW_FILE, 0o600, dir_fd=parent_fd)
        with os.fdopen(source.read(found), "rb") as original, os.fdopen(new, "wb") as made:
            shutil.copyfileobj(original, made, 1 << 20)
            made.flush()
            os.fchown(made.fileno(), *owner)
            os.fchmod(made.fileno(), stat.S_IMODE(found.info.st_mode) & source.modes if mode is None else mode)
            _copy_xattrs(original.fileno(), made.fileno())

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        above, _, name = path.strip("/").rpartition("/")
        with fds.closing(fds.openat2(self._root_fd, above or ".", _PATH | os.O_DIRECTORY)) as fd:
            yield fd, name


def _copy_xattrs(source_fd: int, target_fd: int) -> None:
    try:
        for key in os.listxattr(source_fd):
            if not key.startswith((*NOT_OURS_TO_SET, "system.")):
                os.setxattr(target_fd, key, os.getxattr(source_fd, key))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
