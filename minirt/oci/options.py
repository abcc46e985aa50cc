"""Mount options as mount(8) and the OCI spec write them, sorted into what the kernel's calls want.

Source: https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-mount-options
"""

from msgspec import Struct

from minirt.errors import Unsupported
from minirt.linux import mount
from minirt.namespaces.rootfs import PROPAGATION

SET = {
    "ro": mount.MOUNT_ATTR_RDONLY,
    "nosuid": mount.MOUNT_ATTR_NOSUID,
    "nodev": mount.MOUNT_ATTR_NODEV,
    "noexec": mount.MOUNT_ATTR_NOEXEC,
    "noatime": mount.MOUNT_ATTR_NOATIME,
    "strictatime": mount.MOUNT_ATTR_STRICTATIME,
}
DEFAULTS = {"rw", "suid", "dev", "exec", "relatime", "defaults"}
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
        Unsupported: an option that the spec knows and this version does not.
    """
    attributes, propagation = 0, mount.MS_PRIVATE
    data: list[tuple[str, str | None]] = []
    for option in options:
        if option in REFUSED:
            raise Unsupported(f"use {field}", f"the mount option {option!r} is not supported yet", "leave it out")
        attributes |= SET.get(option, 0)
        propagation = PROPAGATION.get(option, propagation) & ~mount.MS_REC
        if option not in SET and option not in DEFAULTS and option not in PROPAGATION and option not in BINDS:
            key, sign, value = option.partition("=")
            data.append((key, value if sign else None))
    return MountOptions(attributes, tuple(data), bool(BINDS & set(options)), "rbind" in options, propagation)


BINDS = {"bind", "rbind"}
