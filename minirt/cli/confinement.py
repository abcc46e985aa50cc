"""docker's flags that narrow or widen what a container may do, read: --security-opt, --tmpfs, --ulimit, --sysctl.

Source: docker's cli (opts/), moby's pkg/mount and go-units' ulimit.go for what is valid and what is the default.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from minirt.errors import InvalidInput

if TYPE_CHECKING:
    from minirt.engine.records import Tmpfs
    from minirt.oci.spec import Rlimit
    from minirt.security.conditional import Choice

TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")
TMPFS_DATA = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol")
NO_LIMIT = 2**64 - 1
DEFAULT_SYSCTLS = (
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
)
"""Anybody may use ports below 1024, and ping; a user namespace does not have all those groups. Source: moby's
daemon/oci_linux.go"""
NET, QUEUES = "net.", "fs.mqueue."


class SecurityOptions(Struct, frozen=True):
    """What --security-opt says."""

    no_new_privileges: bool = False
    seccomp: "Choice" = "default"
    apparmor: str = "default"
    masks: bool = True


def security(texts: tuple[str, ...]) -> SecurityOptions:
    """Return docker's security options; the last of a kind counts. ``label=disable`` is what is so anyway.

    Raises:
        InvalidInput: there is no such option, or a profile is wrong.
    """
    found = SecurityOptions()
    for text in texts:
        key, _, value = text.partition("=") if "=" in text else text.partition(":")
        found = _with(found, key, value, text)
    return found


def _with(found: SecurityOptions, key: str, value: str, text: str) -> SecurityOptions:
    from msgspec import structs

    match key, value:
        case "seccomp", str() if value:
            return structs.replace(found, seccomp=_seccomp(value))
        case "no-new-privileges", "" | "true" | "false":
            return structs.replace(found, no_new_privileges=value != "false")
        case "apparmor", str() if value:
            return structs.replace(found, apparmor=value)
        case "systempaths", "unconfined":
            return structs.replace(found, masks=False)
        case "label", "disable":
            return found
    do = "use seccomp=unconfined, seccomp=FILE, apparmor=PROFILE, systempaths=unconfined, label=disable"
    why = "minirt has none of this name and value"
    raise InvalidInput(f"use the security option {text!r}", why, f"{do} or no-new-privileges")


def _seccomp(value: str) -> "Choice":
    """Return no profile, the default one (docker calls it builtin), or the one in a file."""
    from minirt.security import conditional

    if value == "unconfined":
        return "unconfined"
    return "default" if value == "builtin" else conditional.load(Path(value))


def tmpfs(texts: tuple[str, ...]) -> tuple["Tmpfs", ...]:
    """Return what PATH[:OPTIONS] ask for; options of one's own come after the defaults, and win over them.

    Raises:
        InvalidInput: a path that is not absolute or is /, or an option that tmpfs has not.
    """
    return tuple({one.destination: one for one in map(_tmpfs, texts)}.values())


def _tmpfs(text: str) -> "Tmpfs":
    from minirt.engine.records import Tmpfs
    from minirt.namespaces.rootfs import PROPAGATION
    from minirt.oci.options import CHANGES

    path, _, options = text.partition(":")
    place = os.path.normpath("/" + path.lstrip("/"))
    if not path.startswith("/"):
        raise InvalidInput(f"use the tmpfs {text!r}", f"{path!r} is not an absolute path", "for example /run:size=64m")
    if place == "/":
        raise InvalidInput(f"use the tmpfs {text!r}", "it would hide the whole image", "mount it below /")
    words = tuple(filter(None, options.split(",")))
    for word in words:
        key, sign, value = word.partition("=")
        if word not in {*CHANGES, *PROPAGATION} and not (key in TMPFS_DATA and sign and value):
            do = f"use {', '.join(f'{name}=' for name in TMPFS_DATA)} or a mount's flags, such as exec"
            raise InvalidInput(f"use the tmpfs {text!r}", f"tmpfs has no option {word!r}", do)
    return Tmpfs(place, (*TMPFS_DEFAULTS, *words))


def ulimits(texts: tuple[str, ...]) -> tuple["Rlimit", ...]:
    """Return what NAME=SOFT[:HARD] ask for; -1 is no limit, and the last of a name counts.

    Raises:
        InvalidInput: there is no such limit, a number is none, or the soft one is above the hard one.
    """
    return tuple({limit.type: limit for limit in map(_ulimit, texts)}.values())


def _ulimit(text: str) -> "Rlimit":
    from minirt.oci.spec import Rlimit
    from minirt.security.operations import RLIMITS

    found = re.fullmatch(r"(\w+)=(-1|\d{1,19})(?::(-1|\d{1,19}))?", text)
    if not found:
        raise InvalidInput(f"use the ulimit {text!r}", "it is not NAME=SOFT[:HARD]", "for example nofile=1024:4096")
    name, soft, hard = found.groups(default=found[2])
    if f"RLIMIT_{name.upper()}" not in RLIMITS:
        known = ", ".join(sorted(one.removeprefix("RLIMIT_").lower() for one in RLIMITS))
        raise InvalidInput(f"use the ulimit {text!r}", f"there is none named {name!r}", f"use one of {known}")
    limits = [NO_LIMIT if number == "-1" else int(number) for number in (soft, hard)]
    if limits[0] > limits[1]:
        raise InvalidInput(f"use the ulimit {text!r}", f"its soft limit {soft} is above the hard one, {hard}")
    return Rlimit(f"RLIMIT_{name.upper()}", *limits)


def sysctls(texts: tuple[str, ...], network: str, ipc: str, *, host_users: bool = True) -> dict[str, str]:
    """Return what KEY=VALUE ask for, as far as the container's own namespaces have it, after docker's defaults.

    Raises:
        InvalidInput: it belongs to no namespace, or to one that is the host's here.
    """
    from minirt.namespaces.sysctl import IPC

    found = {} if network == "host" else dict(DEFAULT_SYSCTLS if host_users else DEFAULT_SYSCTLS[:1])
    for text in texts:
        key, sign, value = text.partition("=")
        key = key.replace("/", ".") if "." not in key else key
        if not sign or not key:
            raise InvalidInput(f"set the sysctl {text!r}", "it is not KEY=VALUE", "for example net.core.somaxconn=1024")
        is_network = key.startswith(NET)
        if not is_network and not key.startswith(QUEUES) and key not in {f"kernel.{name}" for name in IPC}:
            why = "it is not allowed: it is not of the container's network or IPC namespace"
            raise InvalidInput(f"set the sysctl {key}", why, "set it on the host, or leave it out")
        if (network if is_network else ipc) == "host":
            why = f"it is not allowed with the host's {'network' if is_network else 'IPC namespace'}, whose it would be"
            raise InvalidInput(f"set the sysctl {key}", why, "leave it out, or give the container its own")
        found[key] = value
    return found
