"""What layers look like on top of each other: a mount that nobody else sees, read only, held by its descriptor.

It is attached nowhere, so that it ends with the process that holds it, however that ends.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from minirt.linux import mount


@contextlib.contextmanager
def view(layers: Sequence[Path]) -> Iterator[Path]:
    """Stack ``layers``, the top one first, while the block runs; the block gets where to look: a symlink.

    The top one may be the upper directory of a container, also of one that runs.

    Raises:
        OSError: the kernel refused to.
    """
    fd = detached(layers)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def detached(layers: Sequence[Path]) -> int:
    """Return the layers stacked as a detached mount, read only. Raises OSError."""
    if len(layers) == 1:  # overlayfs wants two
        fd = mount.open_tree(-100, str(layers[0]), mount.OPEN_TREE_CLONE)
        mount.mount_setattr(fd, "", 0, to_set=mount.MOUNT_ATTR_RDONLY)
        return fd
    context = mount.fsopen("overlay")
    try:
        for layer in layers:
            mount.fsconfig_string(context, "lowerdir+", str(layer))
        mount.fsconfig_create(context)
        return mount.fsmount(context)
    finally:
        os.close(context)
