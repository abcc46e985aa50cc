"""The root file system: overlay or directory, made the root with pivot_root, and nothing of the host left behind.

    mount / rslave ── overlay on <bundle>/rootfs ── (mounts, devices, masks, by descriptor) ── pivot_root ── detach old

All of it happens in the container's own mount namespace, so the host sees no mount and has none to clean up.
Source: pivot_root(2), mount_namespaces(7), the kernel's Documentation/filesystems/overlayfs.rst.
"""

import errno
import os

from minirt import journal
from minirt.errors import StepFailed
from minirt.linux import fds, mount
from minirt.linux.operation import Operation
from minirt.namespaces import idmap
from minirt.namespaces.inroot import InRoot

PROPAGATION = {
    "private": mount.MS_PRIVATE,
    "rprivate": mount.MS_PRIVATE | mount.MS_REC,
    "slave": mount.MS_SLAVE,
    "rslave": mount.MS_SLAVE | mount.MS_REC,
    "shared": mount.MS_SHARED,
    "rshared": mount.MS_SHARED | mount.MS_REC,
    "unbindable": mount.MS_UNBINDABLE,
    "runbindable": mount.MS_UNBINDABLE | mount.MS_REC,
}
"""The mount flags of each propagation option of the OCI spec. Source: mount(8), "Shared subtree operations"."""


class SetPropagation(Operation[InRoot], frozen=True):
    """Say which mount events cross between this namespace and the one it was copied from."""

    kind: str
    path: str = "/"

    def describe(self) -> str:
        """Return the operation in words."""
        return f"mount --make-{self.kind} {self.path}"

    def execute(self, context: InRoot) -> None:
        """Change the propagation."""
        mount.mount(None, self.path, None, PROPAGATION[self.kind])


class HideBelow(Operation[InRoot], frozen=True):
    """Let nobody else see what is mounted on the mount that ``path`` lies on: it is shared with the host's own."""

    path: str

    def describe(self) -> str:
        """Return the operation in words."""
        return f"mount --make-private of the mount that {self.path} is on"

    def execute(self, context: InRoot) -> None:
        """Find the mount point above, and make it private."""
        mount.mount(None, _mount_point(os.path.realpath(self.path)), None, mount.MS_PRIVATE)


def _mount_point(path: str) -> str:
    """Return the mount point that ``path``, without symlinks, lies below."""
    while path != "/" and _mount_id(path) == _mount_id(os.path.dirname(path)):
        path = os.path.dirname(path)
    return path


def _mount_id(path: str) -> str:
    """Return the id of a path's mount."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return _mount_id_of(fd)
    finally:
        os.close(fd)


class MapLayer(Operation[InRoot], frozen=True):
    """Put on a layer a mount of itself whose files belong to a user namespace's ids: an overlay cannot be mapped whole.

    For a mount namespace of one's own, where the overlay then finds it by the layer's path. (Descriptors of mounts
    that are attached nowhere would do as well, from Linux 6.15 on.)
    """

    path: str
    uid_map: idmap.Map
    gid_map: idmap.Map

    def describe(self) -> str:
        """Return the operation in words."""
        return f"mount --bind -o idmap {self.path} {self.path}"

    def execute(self, context: InRoot) -> None:
        """Copy the layer's mount, map the copy's ids, attach it. Raises StepFailed: its ids cannot be mapped."""
        with fds.closing(mount.open_tree(-100, self.path, mount.OPEN_TREE_CLONE)) as tree:
            idmap.apply(tree, self.path, self.uid_map, self.gid_map, below=False)
            with fds.closing(os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as place:
                mount.move_mount(tree, place)


def _mount_id_of(fd: int) -> str:
    """Return the id of a descriptor's mount. Source: proc_pid_fdinfo(5)."""
    with open(f"/proc/self/fdinfo/{fd}") as info:
        return next(line.split()[1] for line in info if line.startswith("mnt_id:"))


class MountOverlay(Operation[InRoot], frozen=True):
    """Stack the image's layers (top first) under a writable directory, and let it be the coming root.

    With ``mapped`` the layers' ids are to be those of the container's user namespace: see ``MapLayer``.
    """

    lowers: tuple[str, ...]
    upper: str
    work: str
    target: str
    mapped: bool = False

    def describe(self) -> str:
        """Return the operation in words."""
        return f"mount overlay of {len(self.lowers)} layers on {self.target} (upperdir {self.upper})"

    def execute(self, context: InRoot) -> None:
        """Mount it and keep its descriptor as the root. Raises StepFailed: it came out read-only."""
        self.attach(context, self.prepare())

    def prepare(self) -> int:
        """Return the overlay, detached.

        Raises:
            StepFailed: it came out read-only. overlayfs does not fail where it can make nothing in its work directory.
        """
        fd = mount.fsopen("overlay")
        try:
            for lower in self.lowers:
                mount.fsconfig_string(fd, "lowerdir+", lower)
            mount.fsconfig_string(fd, "upperdir", self.upper)
            mount.fsconfig_string(fd, "workdir", self.work)
            mount.fsconfig_create(fd)
            root = mount.fsmount(fd)
        finally:
            os.close(fd)
        if os.fstatvfs(root).f_flag & os.ST_RDONLY:
            why = f"the kernel mounted it read-only, for it could make nothing in {self.work}"
            raise StepFailed(self.describe(), why, "is that disk full?", errno=errno.EROFS, step=type(self).__name__)
        return root

    def attach(self, context: InRoot, root: int) -> None:
        """Let it be the coming root."""
        _place_root(context, root, self.target)


class BindRootfs(Operation[InRoot], frozen=True):
    """Bind a directory onto itself, so that it is a mount that pivot_root accepts."""

    path: str

    def describe(self) -> str:
        """Return the operation in words."""
        return f"mount --rbind {self.path} {self.path}"

    def execute(self, context: InRoot) -> None:
        """Bind it and keep its descriptor as the root."""
        self.attach(context, self.prepare())

    def prepare(self) -> int:
        """Return the directory as a mount, detached, with those below it."""
        root = mount.open_tree(-100, self.path, mount.OPEN_TREE_CLONE | mount.AT_RECURSIVE)
        mount.mount_setattr(root, "", mount.AT_RECURSIVE, propagation=mount.MS_PRIVATE)
        return root

    def attach(self, context: InRoot, root: int) -> None:
        """Let it be the coming root."""
        _place_root(context, root, self.path)


def _place_root(context: InRoot, root: int, target: str) -> None:
    target_fd = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount.move_mount(root, target_fd)
    finally:
        os.close(target_fd)
    context.rootfs_fd = root


class PivotRoot(Operation[InRoot], frozen=True):
    """Make the prepared root the root, and let go of the old one with every mount below it.

    One that is ``shared`` is cut off first: the host's would be unmounted with it.
    """

    shared: bool = False

    def describe(self) -> str:
        """Return the operation in words."""
        cut = "mount --make-rslave . && " if self.shared else ""
        return f"pivot_root . . && {cut}umount -l .  (the host's file system goes out of sight)"

    def execute(self, context: InRoot) -> None:
        """Pivot in place: the old root ends up on top of the new one, and is detached there."""
        os.fchdir(context.rootfs_fd)
        old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if self.shared else -1
        mount.pivot_root(".", ".")
        if self.shared:
            mount.mount_setattr(old, "", mount.AT_RECURSIVE, propagation=mount.MS_SLAVE)
            os.close(old)
        mount.umount2(".", mount.MNT_DETACH)
        os.chdir("/")


class MoveRoot(Operation[InRoot], frozen=True):
    """Make the prepared root the root where pivot_root cannot (on a ramdisk): by moving it over the old one.

    The old one stays below, so nothing may show through: the host's proc and sysfs are unmounted, for who has them may
    mount them anew, without the container's masks.
    """

    def describe(self) -> str:
        """Return the operation in words."""
        return "umount -l of the host's proc and sysfs && mount --move . / && chroot .  (instead of pivot_root)"

    def execute(self, context: InRoot) -> None:
        """Unmount, move, change over."""
        inside = _mount_id_of(context.rootfs_fd)
        mount.mount(None, "/", None, mount.MS_SLAVE | mount.MS_REC)
        for point in _kernels_outside(inside):
            mount.umount2(point, mount.MNT_DETACH)
        os.fchdir(context.rootfs_fd)
        mount.mount(".", "/", None, mount.MS_MOVE)
        journal.step("chroot", os.chroot, ".")
        os.chdir("/")


def _kernels_outside(root: str) -> list[str]:
    """Return where proc and sysfs are mounted, the last first, but for what lies below the mount with the id ``root``.

    Source: proc_pid_mountinfo(5)
    """
    with open("/proc/self/mountinfo") as file:
        lines = [line.split(" ") for line in file]
    below = {root}
    found: list[str] = []
    for words in lines:
        if words[1] in below:
            below.add(words[0])
        elif words[words.index("-") + 1] in {"proc", "sysfs"}:
            found.append(words[4].encode().decode("unicode_escape"))
    return found[::-1]


class ReadonlyRoot(Operation[InRoot], frozen=True):
    """Make the root mount read-only; mounts below it keep their own flags."""

    def describe(self) -> str:
        """Return the operation in words."""
        return "mount_setattr / MOUNT_ATTR_RDONLY"

    def execute(self, context: InRoot) -> None:
        """Set the attribute."""
        mount.mount_setattr(context.rootfs_fd, "", 0, to_set=mount.MOUNT_ATTR_RDONLY)
