"""Paths inside a container's root, resolved by the kernel (openat2 RESOLVE_IN_ROOT) and never by us.

An image is not to be trusted: its /proc may be a symlink to the host's. Every operation on a path inside gets a
descriptor from here, and works on the descriptor.
"""

import os
import stat
from typing import Protocol

from minirt.linux import fds


class InRoot(Protocol):
    """What operations on a container's root hand to each other: its descriptor, and an empty mount to mask with."""

    rootfs_fd: int
    empty_fd: int


def open_path(root_fd: int, path: str) -> int:
    """Return an O_PATH descriptor of what is at ``path`` in the root. Raises OSError: ENOENT, ENOTDIR, ELOOP."""
    return fds.openat2(root_fd, path, os.O_PATH)


def exists(root_fd: int, path: str) -> bool:
    """Say whether there is something at ``path`` in the root."""
    try:
        os.close(open_path(root_fd, path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def make_directory(root_fd: int, path: str, mode: int = 0o755) -> int:
    """Return an O_PATH descriptor of a directory in the root, made with its parents where missing."""
    try:
        return fds.openat2(root_fd, path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        pass
    parent, name = os.path.split("/" + path.rstrip("/"))
    with fds.closing(make_directory(root_fd, parent)) as parent_fd:
        try:
            os.mkdir(name, mode, dir_fd=parent_fd)
        except FileExistsError:
            if target := _link(parent_fd, name):
                return make_directory(root_fd, os.path.join(parent, target), mode)
    return fds.openat2(root_fd, path, os.O_PATH | os.O_DIRECTORY)


def make_file(root_fd: int, path: str) -> int:
    """Return an O_PATH descriptor of a file in the root; an empty one is made, with its parents, where missing."""
    try:
        return open_path(root_fd, path)
    except FileNotFoundError:
        pass
    parent, name = os.path.split("/" + path.rstrip("/"))
    with fds.closing(make_directory(root_fd, parent)) as parent_fd:
        try:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent_fd))
        except FileExistsError:
            if target := _link(parent_fd, name):
                return make_file(root_fd, os.path.join(parent, target))
    return open_path(root_fd, path)


def _link(parent_fd: int, name: str) -> str:
    """Return where a symlink leads ("" for anything else): what it names is made, as far as it is not there.

    Images have such: /etc/resolv.conf that leads to a file of systemd's, /var/run to a /run that was left out.
    """
    try:
        return os.readlink(name, dir_fd=parent_fd)
    except OSError:
        return ""


def is_directory(fd: int) -> bool:
    """Say whether a descriptor is a directory's."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)
