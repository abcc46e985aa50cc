"""The flags of ``minirt run`` for a user namespace, as podman has them: --userns, --uidmap, --gidmap, --sub…name."""

import re
from typing import TYPE_CHECKING, Any

from minirt.errors import InvalidInput

if TYPE_CHECKING:
    from minirt.engine.idranges import Ids
    from minirt.namespaces.idmap import Map


def read(options: dict[str, Any]) -> "Ids":
    """Return the maps that are asked for; both empty for the host's user namespace, and for --userns auto.

    Raises:
        InvalidInput: a mode that there is not, flags that exclude each other, or a map that makes no sense.
    """
    from minirt.engine.idranges import Ids

    mode = options["userns"]
    if mode not in {"", "host", "auto"}:
        raise InvalidInput(f"use --userns {mode}", "there is no such user namespace", "use host, auto, or --uidmap")
    uids = _map(options, "--uidmap", "--subuidname")
    gids = _map(options, "--gidmap", "--subgidname")
    if mode and (uids or gids):
        why = f"the maps make a user namespace of their own, and --userns {mode} asks for another"
        raise InvalidInput("use --uidmap or --gidmap", why, "leave out --userns")
    return Ids(uids or gids, gids or uids)


def _map(options: dict[str, Any], flag: str, of_user: str) -> "Map":
    """Return the map of one kind of ids (() where none is asked for)."""
    from minirt.engine import idranges
    from minirt.namespaces import idmap

    texts, name = options[flag[2:]], options[of_user[2:]]
    if texts and name:
        raise InvalidInput(f"use {flag}", f"{of_user} makes a map, too", "leave one of them out")
    if name:
        return idranges.of_user(name, "/etc/subuid" if flag == "--uidmap" else "/etc/subgid")
    lines = tuple(_line(flag, text) for text in texts)
    idmap.check(lines, flag)
    if lines:
        idmap.check_root(lines, flag)
    return lines


def _line(flag: str, text: str) -> tuple[int, int, int]:
    found = re.fullmatch(r"(\d{1,10}):(\d{1,10})(?::(\d{1,10}))?", text)
    if not found:
        raise InvalidInput(
            f"use {flag} {text!r}", "it is not INSIDE:HOST:SIZE, three numbers", "such is 0:100000:65536"
        )
    inside, outside, size = found.groups(default="1")
    return int(inside), int(outside), int(size)
