"""What is mounted below a container's root: new file systems, binds, masks, read-only paths.

A mount is made detached, given its attributes, and only then moved onto a descriptor in the root: at no moment is it
visible with more rights than asked for, and no path is resolved twice.
"""

import os

from minirt.errors import StepFailed
from minirt.linux import fds, mount
from minirt.linux.operation import Operation
from minirt.namespaces import copyup, idmap, inroot
from minirt.namespaces.inroot import InRoot

AT_FDCWD = -100
NULL_DEVICE = os.makedev(1, 3)

ATTRIBUTES = {
    mount.MOUNT_ATTR_RDONLY: "ro",
    mount.MOUNT_ATTR_NOSUID: "nosuid",
    mount.MOUNT_ATTR_NODEV: "nodev",
    mount.MOUNT_ATTR_NOEXEC: "noexec",
    mount.MOUNT_ATTR_STRICTATIME: "strictatime",
    mount.MOUNT_ATTR_NOATIME: "noatime",
    mount.MOUNT_ATTR_NODIRATIME: "nodiratime",
    mount.MOUNT_ATTR_NOSYMFOLLOW: "nosymfollow",
}
TAKEN = {
    mount.MOUNT_ATTR_RDONLY: "rw",
    mount.MOUNT_ATTR_NOSUID: "suid",
    mount.MOUNT_ATTR_NODEV: "dev",
    mount.MOUNT_ATTR_NOEXEC: "exec",
    mount.MOUNT_ATTR_NODIRATIME: "diratime",
    mount.MOUNT_ATTR_NOSYMFOLLOW: "symfollow",
}


def attribute_names(attributes: int) -> str:
    """Return mount attributes as mount(8) writes them, comma-separated."""
    return ",".join(name for bit, name in ATTRIBUTES.items() if attributes & bit)


def _change(tree: int, reach: int, given: int, taken: int) -> None:
    """Change a detached mount's attributes, where there is something to change; ``reach`` may be AT_RECURSIVE."""
    if (given | taken) & mount.MOUNT_ATTR__ATIME:  # one choice of several: the kernel wants the old one taken back
        taken |= mount.MOUNT_ATTR__ATIME
    if given or taken:
        mount.mount_setattr(tree, "", reach, to_set=given, to_clear=taken)


class MountFilesystem(Operation[InRoot], frozen=True):
    """Mount a new file system inside the root. ``data`` are its own options: key and value, or key and None.

    With ``copy_up`` it begins as a copy of the directory that it covers; ``propagation`` 0 is private. A tmpfs that
    asks for no mode takes that of the directory it covers, as under runc.
    """

    fstype: str
    source: str
    target: str
    attributes: int = 0
    data: tuple[tuple[str, str | None], ...] = ()
    cause: str = ""
    copy_up: bool = False
    propagation: int = 0

    def describe(self) -> str:
        """Return the operation in words."""
        own = [key if value is None else f"{key}={value}" for key, value in self.data]
        own += ["tmpcopyup"] if self.copy_up else []
        options = ",".join([*own, *filter(None, [attribute_names(self.attributes)])])
        return f"mount -t {self.fstype} {self.source} {self.target}" + (f" -o {options}" if options else "")

    @property
    def because(self) -> str:
        """Return the field that asked for it."""
        return self.cause

    def execute(self, context: InRoot) -> None:
        """Make the file system, then attach it."""
        made = self._make()
        try:
            is_covering = self._takes_mode and inroot.exists(context.rootfs_fd, self.target)
            target = inroot.make_directory(context.rootfs_fd, self.target)
            try:
                if self.copy_up:
                    copyup.copy_contents(target, made)
                if is_covering:
                    copyup.copy_mode(target, made)
                if self._is_filled:
                    _change(made, 0, self.attributes & mount.MOUNT_ATTR_RDONLY, 0)
                mount.move_mount(made, target)
            finally:
                os.close(target)
        finally:
            os.close(made)

    @property
    def _takes_mode(self) -> bool:
        return self.fstype == "tmpfs" and "mode" not in dict(self.data)

    @property
    def _is_filled(self) -> bool:
        """Say whether it is written to before it is attached, and so can become read-only only then."""
        return self.copy_up or self._takes_mode

    def _make(self) -> int:
        fd = mount.fsopen(self.fstype)
        try:
            mount.fsconfig_string(fd, "source", self.source)
            for key, value in self.data:
                if value is None:
                    mount.fsconfig_flag(fd, key)
                else:
                    mount.fsconfig_string(fd, key, value)
            mount.fsconfig_create(fd)
            made = mount.fsmount(fd, self.attributes & (~mount.MOUNT_ATTR_RDONLY if self._is_filled else ~0))
        finally:
            os.close(fd)
        if self.propagation:
            mount.mount_setattr(made, "", 0, propagation=self.propagation & ~mount.MS_REC)
        return made


class BindMount(Operation[InRoot], frozen=True):
    """Show a file or directory of the host inside the root (its symlinks on the host are followed).

    ``attributes`` are given to the mount and ``taken`` taken from it; ``below`` and ``below_taken`` are for the mount
    and all those in it. ``propagation`` with MS_REC is for these, too. With ``uid_map`` or ``gid_map`` the files belong
    to other ids than on disk (with ``idmap_below`` those of the mounts in it as well).
    """

    source: str
    target: str
    attributes: int = 0
    recursive: bool = True
    propagation: int = mount.MS_PRIVATE | mount.MS_REC
    cause: str = ""
    taken: int = 0
    below: int = 0
    below_taken: int = 0
    uid_map: idmap.Map = ()
    gid_map: idmap.Map = ()
    idmap_below: bool = False

    def describe(self) -> str:
        """Return the operation in words."""
        options = self._options()
        kind = "--rbind" if self.recursive else "--bind"
        return f"mount {kind} {self.source} {self.target}" + (f" -o {options}" if options else "")

    @property
    def because(self) -> str:
        """Return the field that asked for it."""
        return self.cause

    def execute(self, context: InRoot) -> None:
        """Copy the mount, set its attributes, attach the copy.

        Raises:
            StepFailed: its ids cannot be mapped.
        """
        tree = self.prepare()
        try:
            self.attach(context, tree)
        finally:
            os.close(tree)

    def prepare(self) -> int:
        """Return the copy with its attributes, detached. Raises StepFailed: its ids cannot be mapped."""
        reach = mount.AT_RECURSIVE if self.recursive else 0
        tree = mount.open_tree(AT_FDCWD, self.source, mount.OPEN_TREE_CLONE | reach)
        try:
            self._shape(tree)
        except BaseException:
            os.close(tree)
            raise
        return tree

    def attach(self, context: InRoot, tree: int) -> None:
        """Put the copy inside the root."""
        make = inroot.make_directory if inroot.is_directory(tree) else inroot.make_file
        with fds.closing(make(context.rootfs_fd, self.target)) as target:
            mount.move_mount(tree, target)

    def _shape(self, tree: int) -> None:
        every = mount.AT_RECURSIVE if self.propagation & mount.MS_REC else 0
        mount.mount_setattr(tree, "", every, propagation=self.propagation & ~mount.MS_REC)
        if self.uid_map or self.gid_map:
            idmap.apply(tree, self.source, self.uid_map, self.gid_map, below=self.idmap_below)
        _change(tree, mount.AT_RECURSIVE, self.below, self.below_taken)
        _change(tree, 0, self.attributes, self.taken)

    def _options(self) -> str:
        own = [attribute_names(self.attributes), *(name for bit, name in TAKEN.items() if self.taken & bit)]
        below = [*attribute_names(self.below).split(","), *(TAKEN[bit] for bit in TAKEN if self.below_taken & bit)]
        ids = [("ridmap" if self.idmap_below else "idmap")] if self.uid_map or self.gid_map else []
        return ",".join([*filter(None, own), *(f"r{name}" for name in below if name), *ids])


class MaskPath(Operation[InRoot], frozen=True):
    """Hide a path: an empty read-only tmpfs over a directory, /dev/null over a file. A missing path is fine."""

    path: str

    def describe(self) -> str:
        """Return the operation in words."""
        return f"mask {self.path}"

    def execute(self, context: InRoot) -> None:
        """Cover what is there, through its descriptor."""
        try:
            target = inroot.open_path(context.rootfs_fd, self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            is_directory = inroot.is_directory(target)
            cover = _empty_directory(context) if is_directory else _null_device(context.rootfs_fd)
            mount.move_mount(cover, target)
            if is_directory and context.empty_fd < 0:
                context.empty_fd = cover
            else:
                os.close(cover)
        finally:
            os.close(target)


def _empty_directory(context: InRoot) -> int:
    """Return an empty read-only tmpfs, detached: a new one for the first mask, copies of it for the others."""
    if context.empty_fd >= 0:
        return mount.open_tree(context.empty_fd, "", mount.OPEN_TREE_CLONE | mount.AT_EMPTY_PATH)
    fd = mount.fsopen("tmpfs")
    try:
        mount.fsconfig_string(fd, "size", "0")
        mount.fsconfig_string(fd, "nr_inodes", "1")
        mount.fsconfig_create(fd)
        return mount.fsmount(fd, mount.MOUNT_ATTR_RDONLY)
    finally:
        os.close(fd)


def _null_device(root_fd: int) -> int:
    """Return a detached bind of the container's /dev/null, once it is seen to be the null device."""
    null = inroot.open_path(root_fd, "dev/null")
    try:
        if os.fstat(null).st_rdev != NULL_DEVICE:
            raise StepFailed("mask a file", "/dev/null in the container is not the null device")
        return mount.open_tree(null, "", mount.OPEN_TREE_CLONE | mount.AT_EMPTY_PATH)
    finally:
        os.close(null)


class ReadonlyPath(Operation[InRoot], frozen=True):
    """Bind a path onto itself read-only, with what is mounted below it. A missing path is fine."""

    path: str

    def describe(self) -> str:
        """Return the operation in words."""
        return f"mount --rbind -o ro {self.path} {self.path}"

    def execute(self, context: InRoot) -> None:
        """Copy, make read-only, and put the copy over the original."""
        try:
            target = inroot.open_path(context.rootfs_fd, self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            tree = mount.open_tree(target, "", mount.OPEN_TREE_CLONE | mount.AT_RECURSIVE | mount.AT_EMPTY_PATH)
            try:
                mount.mount_setattr(tree, "", mount.AT_RECURSIVE, to_set=mount.MOUNT_ATTR_RDONLY)
                mount.move_mount(tree, target)
            finally:
                os.close(tree)
        finally:
            os.close(target)
