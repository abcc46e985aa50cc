"""Users and groups by name, looked up in an image's own /etc/passwd and /etc/group, as docker reads them.

The files are read from the layers, top first, each opened inside its layer (RESOLVE_IN_ROOT), so nothing is mounted.
"""

import os
import stat
from pathlib import Path

from msgspec import Struct

from minirt.errors import InvalidInput
from minirt.linux import fds


class Identity(Struct, frozen=True):
    """Who a container's process is: ids, supplementary groups, home directory."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve(user: str, layers: tuple[Path, ...], extra: tuple[int, ...] = (), *, image_groups: bool = True) -> Identity:
    """Return who ``user`` (``uid``, ``name``, ``uid:gid``, ``name:group``; "" is root) is in an image.

    ``extra`` are further supplementary groups; with ``image_groups`` those that /etc/group lists the user in join.
    The group itself is among them, as with docker and containerd: else a process could leave it for another.

    Raises:
        InvalidInput: a name that the image does not know, or a number out of range.
    """
    name, _, group = user.partition(":")
    entries = _entries(layers, "etc/passwd", 6)
    entry = next((one for one in entries if name and (one[0] == name or one[2] == name)), None)
    if not name:
        entry = next((one for one in entries if one[2] == "0"), None)
    uid = int(entry[2]) if entry else _number(name or "0", "user", name, "/etc/passwd")
    gid = int(entry[3]) if entry and entry[3].isdigit() else 0
    groups = _entries(layers, "etc/group", 3)
    if group:
        named = next((one for one in groups if one[0] == group), None)
        gid = int(named[2]) if named else _number(group, "group", group, "/etc/group")
    member = [int(one[2]) for one in groups if entry and entry[0] in _members(one) and one[2].isdigit()]
    joined = (gid, *extra, *(member if image_groups and not group else ()))
    return Identity(uid, gid, tuple(dict.fromkeys(joined)), entry[5] if entry and entry[5] else "/")


def _number(text: str, kind: str, shown: str, file: str) -> int:
    if text.isdigit() and int(text) < 1 << 32:
        return int(text)
    raise InvalidInput(
        f"run as {kind} {shown!r}", f"the image's {file} has no such {kind}", "use a name in it, or a number"
    )


def _members(entry: list[str]) -> list[str]:
    return entry[3].split(",") if len(entry) > 3 else []


def _entries(layers: tuple[Path, ...], path: str, fields: int) -> list[list[str]]:
    lines = (_read(layers, path) or b"").decode(errors="replace").splitlines()
    entries = [line.split(":") for line in lines if not line.startswith("#")]
    return [entry for entry in entries if len(entry) >= fields and entry[2].isdigit()]


def _read(layers: tuple[Path, ...], path: str) -> bytes | None:
    """Return a file's content from the uppermost layer that has it; None where a layer deleted it, or none has it."""
    for layer in layers:
        with fds.closing(os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            try:
                fd = fds.openat2(root, path, os.O_RDONLY | os.O_NONBLOCK)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                return None  # ENXIO: overlay's whiteout, a device that is none
            with open(fd, "rb") as file:
                return file.read(1 << 20) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    return None
