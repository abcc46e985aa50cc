"""Mount options as mount(8) and the OCI spec write them, sorted into what the kernel's calls want.

Source: https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-mount-options
"""

from msgspec import Struct

from minirt.errors import Unsupported
from minirt.linux import mount
from minirt.namespaces.rootfs import PROPAGATION

ATIME = mount.MOUNT_ATTR_NOATIME | mount.MOUNT_ATTR_STRICTATIME
CHANGES = {
    "ro": (0, mount.MOUNT_ATTR_RDONLY),
    "rw": (mount.MOUNT_ATTR_RDONLY, 0),
    "nosuid": (0, mount.MOUNT_ATTR_NOSUID),
    "suid": (mount.MOUNT_ATTR_NOSUID, 0),
    "nodev": (0, mount.MOUNT_ATTR_NODEV),
    "dev": (mount.MOUNT_ATTR_NODEV, 0),
    "noexec": (0, mount.MOUNT_ATTR_NOEXEC),
    "exec": (mount.MOUNT_ATTR_NOEXEC, 0),
    "noatime": (ATIME, mount.MOUNT_ATTR_NOATIME),
    "strictatime": (ATIME, mount.MOUNT_ATTR_STRICTATIME),
    "relatime": (ATIME, 0),
    "defaults": (0, 0),
}
"""The attributes that an option takes away, and those it gives: the last word counts, as for mount(8)."""

BINDS = {"bind", "rbind"}
REFUSED = {"tmpcopyup", "idmap", "ridmap", "rro", "rrw", "rnosuid", "rnodev", "rnoexec", "rnoatime", "rstrictatime"}


class MountOptions(Struct, frozen=True):
    """One mount's options: attribute bits, what the file system itself reads, bind or not, propagation flags."""

    attributes: int = 0
    data: tuple[tuple[str, str | None], ...] = ()
    bind: bool = False
    recursive: bool = False
    propagation: int = mount.MS_PRIVATE


def parse(options: tuple[str, ...], field: str) -> MountOptions:
    """Sort options; ``field`` names them in an error.

    Raises:
        Unsupported: an option that the spec knows and this version does not, or that a bind mount cannot heed.
    """
    attributes, propagation = 0, mount.MS_PRIVATE
    own: list[str] = []
    for option in options:
        cleared, given = CHANGES.get(option, (0, 0))
        attributes = attributes & ~cleared | given
        propagation = PROPAGATION.get(option, propagation) & ~mount.MS_REC
        if option not in CHANGES and option not in PROPAGATION and option not in BINDS:
            own.append(option)
    is_bind = not BINDS.isdisjoint(options)
    for option in own:
        if option in REFUSED or is_bind:
            raise Unsupported(f"use {field}", f"the mount option {option!r} is not supported", "leave it out")
    data = tuple((key, value if sign else None) for key, sign, value in (option.partition("=") for option in own))
    return MountOptions(attributes, data, is_bind, "rbind" in options, propagation)
