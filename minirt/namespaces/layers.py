"""Layers of an image shown in a container, read-only: stacked in its own mount namespace, so the host sees no mount.

the whole    fsopen overlay ── lowerdir+ … ── fsmount ── move_mount onto the target
a part       … attached where nobody looks ── openat2 RESOLVE_IN_ROOT ── open_tree of that ── detached again
"""

import os
from collections.abc import Sequence

from minirt.errors import StepFailed
from minirt.linux import fds, mount
from minirt.linux.operation import Operation
from minirt.namespaces import inroot
from minirt.namespaces.inroot import InRoot
from minirt.namespaces.mounts import AT_FDCWD, attribute_names


def stack(layers: Sequence[str]) -> int:
    """Return layers, the top one first, as one detached mount, read only. Raises OSError."""
    if len(layers) == 1:  # overlayfs wants two
        fd = mount.open_tree(AT_FDCWD, layers[0], mount.OPEN_TREE_CLONE)
        mount.mount_setattr(fd, "", 0, to_set=mount.MOUNT_ATTR_RDONLY, propagation=mount.MS_PRIVATE)
        return fd
    context = mount.fsopen("overlay")
    try:
        for layer in layers:
            mount.fsconfig_string(context, "lowerdir+", layer)
        mount.fsconfig_create(context)
        return mount.fsmount(context, mount.MOUNT_ATTR_RDONLY)
    finally:
        os.close(context)


class MountLayers(Operation[InRoot], frozen=True):
    """Show layers (top first), or with ``subdir`` one directory or file of them, inside the root.

    With ``mapped`` their ids are those of the container's user namespace: see ``rootfs.MapLayer``.
    """

    lowers: tuple[str, ...]
    target: str
    subdir: str = ""
    attributes: int = mount.MOUNT_ATTR_RDONLY
    mapped: bool = False
    cause: str = ""

    def describe(self) -> str:
        """Return the operation in words."""
        part = f"{self.subdir} of " if self.subdir else ""
        return f"mount {part}{len(self.lowers)} layers on {self.target} -o {attribute_names(self.attributes)}"

    @property
    def because(self) -> str:
        """Return the field that asked for it."""
        return self.cause

    def execute(self, context: InRoot) -> None:
        """Stack them, attach them. Raises StepFailed: they have no ``subdir``."""
        with fds.closing(self._part(context.rootfs_fd)) as tree:
            self.attach(context, tree)

    def prepare(self) -> int:
        """Return them detached, made in a mount namespace that no mount leaves. Raises StepFailed: no ``subdir``."""
        with fds.closing(os.open(self.lowers[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as place:
            return self._part(place)

    def attach(self, context: InRoot, tree: int) -> None:
        """Put them inside the root."""
        make = inroot.make_directory if inroot.is_directory(tree) else inroot.make_file
        with fds.closing(make(context.rootfs_fd, self.target)) as target:
            mount.move_mount(tree, target)

    def _part(self, place: int) -> int:
        """Return what is to be shown; for a part the whole is on top of ``place`` for a moment.

        Only of what is attached can a part be copied: of a detached mount from Linux 6.15 on.
        """
        whole = stack(self.lowers)
        if not self.subdir:
            mount.mount_setattr(whole, "", 0, to_set=self.attributes)
            return whole
        with fds.closing(whole):
            mount.move_mount(whole, place)
            try:
                return self._copy(whole)
            finally:
                mount.umount2(f"/proc/self/fd/{whole}", mount.MNT_DETACH)

    def _copy(self, whole: int) -> int:
        try:
            part = inroot.open_path(whole, self.subdir)
        except OSError as error:
            raise StepFailed.from_os_error(f"find {self.subdir} in the layers", error, step="openat2") from error
        with fds.closing(part):
            tree = mount.open_tree(part, "", mount.OPEN_TREE_CLONE | mount.AT_EMPTY_PATH)
        mount.mount_setattr(tree, "", 0, to_set=self.attributes, propagation=mount.MS_PRIVATE)
        return tree
