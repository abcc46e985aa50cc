"""Copy what a directory holds into a new file system that will cover it (the mount option ``tmpcopyup``).

All is done by descriptor, and no symlink is followed: an image is not to be trusted.
Source: https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-mount-options
"""

import os
import stat

from minirt.linux import fds

READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CHUNK = 1 << 20


def copy_contents(source: int, target: int) -> None:
    """Copy all that is in one directory into another, with modes, owners, times and extended attributes.

    Raises OSError: ENOSPC, the new file system is too small.
    """
    with fds.closing(os.open(".", READ_DIRECTORY, dir_fd=source)) as readable:
        for name in os.listdir(readable):
            _copy(name, readable, target)


def copy_mode(source: int, target: int) -> None:
    """Give a directory the mode of another."""
    with fds.closing(os.open(".", READ_DIRECTORY, dir_fd=target)) as writable:
        os.fchmod(writable, stat.S_IMODE(os.fstat(source).st_mode))


def _copy(name: str, source: int, target: int) -> None:
    found = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        os.mkdir(name, dir_fd=target)
        with fds.closing(os.open(name, READ_DIRECTORY, dir_fd=source)) as inner:
            with fds.closing(os.open(name, READ_DIRECTORY, dir_fd=target)) as made:
                copy_contents(inner, made)
                _copy_attributes(inner, made)
    elif stat.S_ISREG(found.st_mode):
        _copy_file(name, source, target)
    elif stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        os.mknod(name, found.st_mode, found.st_rdev, dir_fd=target)
    os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=target)
    os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_file(name: str, source: int, target: int) -> None:
    read = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    make = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with fds.closing(os.open(name, read, dir_fd=source)) as old, fds.closing(os.open(name, make, dir_fd=target)) as new:
        while os.sendfile(new, old, None, CHUNK):
            pass
        _copy_attributes(old, new)


def _copy_attributes(old: int, new: int) -> None:
    """Copy the extended attributes that a tmpfs takes: file capabilities among them, but not every ``user.*``."""
    for name in os.listxattr(old):
        try:
            os.setxattr(new, name, os.getxattr(old, name))
        except OSError:
            continue
