"""Mounts: the classic calls and the descriptor-based ones of Linux 5.2 and later.

With the new calls a mount is built in the dark and placed by descriptor, so that no path is looked up twice:

    fsopen("proc") ─ fsconfig(key, value)… ─ fsconfig(CREATE) ─ fsmount ─┐
    open_tree(source, CLONE) ─ mount_setattr(RDONLY) ────────────────────┴─ move_mount ─▶ a directory's descriptor

Source: mount(2), umount2(2), pivot_root(2), mount_setattr(2), and the kernel's include/uapi/linux/mount.h.
"""

import os

from minirt import journal
from minirt.linux._native import ffi, lib

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_MOVE = 0x2000
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6


def checked(result: int, path: str = "") -> int:
    """Return a syscall's result, or raise the OSError of its errno (with ``path`` as the file it speaks of)."""
    if result < 0:
        number = ffi.errno
        raise OSError(number, os.strerror(number), path or None)
    return result


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """Mount, or change propagation. Raises OSError: EBUSY, EINVAL, ENOENT, EPERM as mount(2) says."""
    journal.step("mount", _mount, source, target, fstype, flags, data)


def _mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None) -> None:
    checked(lib.rt_mount(_text(source), target.encode(), _text(fstype), flags, _text(data)), target)


def umount2(target: str, flags: int = 0) -> None:
    """Unmount. Raises OSError: EBUSY (in use and no MNT_DETACH), EINVAL (no mount there), ENOENT."""
    journal.step("umount2", _umount2, target, flags)


def _umount2(target: str, flags: int) -> None:
    checked(lib.rt_umount2(target.encode(), flags), target)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make ``new_root`` the root mount. Raises OSError: EINVAL when its parent mount is shared, EBUSY, EPERM."""
    journal.step("pivot_root", _pivot_root, new_root, put_old)


def _pivot_root(new_root: str, put_old: str) -> None:
    checked(lib.rt_pivot_root(new_root.encode(), put_old.encode()))


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """Return a descriptor of a mount, or with OPEN_TREE_CLONE of a detached copy of it."""
    return journal.step("open_tree", _open_tree, dirfd, path, flags | OPEN_TREE_CLOEXEC)


def _open_tree(dirfd: int, path: str, flags: int) -> int:
    return checked(lib.rt_open_tree(dirfd, path.encode(), flags), path)


def move_mount(from_fd: int, to_fd: int, to_path: str = "") -> None:
    """Attach a detached mount on the file or directory ``to_fd`` (or ``to_path`` below it)."""
    journal.step("move_mount", _move_mount, from_fd, to_fd, to_path)


def _move_mount(from_fd: int, to_fd: int, to_path: str) -> None:
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if to_path else MOVE_MOUNT_T_EMPTY_PATH)
    checked(lib.rt_move_mount(from_fd, b"", to_fd, to_path.encode(), flags), to_path)


def fsopen(fstype: str) -> int:
    """Begin a new file system. Raises OSError: ENODEV when the kernel does not know ``fstype``."""
    return journal.step("fsopen", _fsopen, fstype)


def _fsopen(fstype: str) -> int:
    return checked(lib.rt_fsopen(fstype.encode(), FSOPEN_CLOEXEC), fstype)


def fsconfig_string(fd: int, key: str, value: str) -> None:
    """Set an option that has a value (at most 255 bytes)."""
    journal.step("fsconfig", _fsconfig, fd, FSCONFIG_SET_STRING, key, value)


def fsconfig_flag(fd: int, key: str) -> None:
    """Set an option that has no value."""
    journal.step("fsconfig", _fsconfig, fd, FSCONFIG_SET_FLAG, key, None)


def fsconfig_create(fd: int) -> None:
    """Make the superblock. Raises OSError with the file system's own message, where the kernel gives one."""
    journal.step("fsconfig", _fsconfig, fd, FSCONFIG_CMD_CREATE, None, None)


def _fsconfig(fd: int, command: int, key: str | None, value: str | None) -> None:
    if lib.rt_fsconfig(fd, command, _text(key), _text(value), 0) < 0:
        number = ffi.errno
        raise OSError(number, os.strerror(number), fs_message(fd) or key)


def fs_message(fd: int) -> str:
    """Return what the kernel wrote to a file system context's log ("" for nothing)."""
    lines = []
    while True:
        try:
            lines.append(os.read(fd, 4096).decode(errors="replace").strip())
        except OSError:
            return "; ".join(line[2:] for line in lines)


def fsmount(fd: int, attributes: int = 0) -> int:
    """Return a detached mount of the file system begun with fsopen."""
    return journal.step("fsmount", _fsmount, fd, attributes)


def _fsmount(fd: int, attributes: int) -> int:
    return checked(lib.rt_fsmount(fd, FSMOUNT_CLOEXEC, attributes))


def mount_setattr(
    dirfd: int, path: str, flags: int, *, to_set: int = 0, to_clear: int = 0, propagation: int = 0, userns_fd: int = 0
) -> None:
    """Change a mount's attributes (with AT_RECURSIVE those below it too)."""
    flags |= 0 if path else AT_EMPTY_PATH
    journal.step("mount_setattr", _mount_setattr, dirfd, path, flags, to_set, to_clear, propagation, userns_fd)


def _mount_setattr(
    dirfd: int, path: str, flags: int, to_set: int, to_clear: int, propagation: int, userns_fd: int
) -> None:
    result = lib.rt_mount_setattr(dirfd, path.encode(), flags, to_set, to_clear, propagation, userns_fd)
    checked(result, path)


def _text(value: str | None) -> bytes | object:
    return ffi.NULL if value is None else value.encode()
