"""Mount options as mount(8) and the OCI spec write them, sorted into what the kernel's calls want.

Source: https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-mount-options
"""

from msgspec import Struct

from minirt.errors import Unsupported
from minirt.linux import mount
from minirt.namespaces.rootfs import PROPAGATION

ATIME = mount.MOUNT_ATTR__ATIME
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
    "atime": (mount.MOUNT_ATTR_NOATIME, 0),
    "strictatime": (ATIME, mount.MOUNT_ATTR_STRICTATIME),
    "nostrictatime": (mount.MOUNT_ATTR_STRICTATIME, 0),
    "relatime": (ATIME, 0),
    "norelatime": (0, 0),
    "nodiratime": (0, mount.MOUNT_ATTR_NODIRATIME),
    "diratime": (mount.MOUNT_ATTR_NODIRATIME, 0),
    "nosymfollow": (0, mount.MOUNT_ATTR_NOSYMFOLLOW),
    "symfollow": (mount.MOUNT_ATTR_NOSYMFOLLOW, 0),
}
"""The attributes that an option takes away, and those it gives: the last word counts, as for mount(8)."""

BELOW = {f"r{option}": change for option, change in CHANGES.items()}
"""The recursive family: the same for the mount and for each mounted in it."""

SILENT = {"defaults", "silent", "loud"}
BINDS = {"bind", "rbind"}
IDMAPS = {"idmap", "ridmap"}
SUBDIR = "X-mount.subdir="
"""What of a file system is mounted instead of its root. Source: mount(8)"""
KNOWN = {*CHANGES, *BELOW, *SILENT, *BINDS, *IDMAPS, *PROPAGATION, "tmpcopyup"}
REFUSED = {"remount"}


class Attributes(Struct, frozen=True):
    """Attributes of a mount that are given, and those that are taken away."""

    given: int = 0
    taken: int = 0

    def then(self, change: tuple[int, int]) -> "Attributes":
        """Return these after one more option."""
        taken, given = change
        return Attributes(self.given & ~taken | given, self.taken & ~given | taken)


class MountOptions(Struct, frozen=True):
    """One mount's options.

    ``subdir`` is what of the file system is meant, "" for its root.
    ``attributes`` are the mount's own, ``below`` those of it and of all mounted in it; ``data`` is what the file
    system itself reads; ``propagation`` is 0 when none is asked for; ``idmap`` is "", "idmap" or "ridmap".
    """

    attributes: Attributes = Attributes()
    below: Attributes = Attributes()
    data: tuple[tuple[str, str | None], ...] = ()
    bind: bool = False
    recursive: bool = False
    propagation: int = 0
    copy_up: bool = False
    idmap: str = ""
    subdir: str = ""


def parse(options: tuple[str, ...], field: str, *, bind: bool = False) -> MountOptions:
    """Sort options; ``field`` names them in an error, ``bind`` says that the mount's type is ``bind``.

    Raises:
        Unsupported: an option that the spec knows and this version does not, or that a bind mount cannot heed.
    """
    attributes, below = Attributes(), Attributes()
    for option in options:
        attributes = attributes.then(CHANGES.get(option, (0, 0)))
        below = below.then(BELOW.get(option, (0, 0)))
    bind = bind or not BINDS.isdisjoint(options)
    own = [option for option in options if option not in KNOWN]
    for option in own:
        if option in REFUSED or bind:
            raise Unsupported(f"use {field}", f"the mount option {option!r} is not supported", "leave it out")
    if bind and "tmpcopyup" in options:
        raise Unsupported(f"use {field}", "tmpcopyup needs a new tmpfs, and this is a bind mount", "leave it out")
    return MountOptions(
        attributes,
        below,
        tuple(_datum(option) for option in own if not option.startswith(SUBDIR)),
        bind,
        "rbind" in options,
        next((PROPAGATION[option] for option in reversed(options) if option in PROPAGATION), 0),
        "tmpcopyup" in options,
        next((option for option in ("ridmap", "idmap") if option in options), ""),
        next((option.removeprefix(SUBDIR) for option in reversed(own) if option.startswith(SUBDIR)), ""),
    )


def _datum(option: str) -> tuple[str, str | None]:
    """Return an option of a file system's own as key and value, or key and None."""
    key, sign, value = option.partition("=")
    return key, value if sign else None
