"""Ids of the host for user namespaces: ranges that are nobody else's, and that no two of minirt's own share.

    /etc/subuid, /etc/subgid    lines of the user ``minirt``, else of ``containers``: name:first:count
    DEFAULT                     without such

A range is taken for as long as a sandbox's record, or a pod's file ``.ids`` beside its volumes, names an id of it.
Who looks for a free one holds a lock until it is written down.

Source: subuid(5); https://systemd.io/UIDS-GIDS, whose range for containers holds DEFAULT, which is above what useradd
gives to users (login.defs(5), SUB_UID_MAX).
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct, structs

from minirt import decoding, journal, paths
from minirt.engine import store
from minirt.engine.records import SandboxConfig
from minirt.errors import Conflict, InvalidInput
from minirt.namespaces.idmap import Map
from minirt.shim.status import replace_file

if TYPE_CHECKING:
    from minirt.images.snapshots import Overlay

SIZE = 65_536
"""How many ids a namespace gets: all that images have, nobody (65534) among them."""
DEFAULT = (0x4000_0000, 1024 * SIZE)
USERS = ("minirt", "containers")
POD_FILE = ".ids"

File = Literal["/etc/subuid", "/etc/subgid"]
Range = tuple[int, int]
"""First id, and how many."""


class Ids(Struct, frozen=True):
    """The maps of a user namespace."""

    uid_map: Map
    gid_map: Map


@contextlib.contextmanager
def allotted(config: SandboxConfig) -> Iterator[SandboxConfig]:
    """Yield a sandbox's configuration with ids where it asks for some; they are to be on record before the block ends.

    Raises:
        Conflict: no range is free.
    """
    if not config.auto_ids:
        yield config
        return
    with _locked():
        found = free()
        yield structs.replace(config, uid_map=found.uid_map, gid_map=found.gid_map)


def of_pod(uid: str) -> Ids:
    """Return the ids of a pod with ``hostUsers: false``, always the same: they lie beside its volumes.

    Raises:
        Conflict: no range is free.
    """
    file = paths.volumes_dir(uid) / POD_FILE
    with _locked():
        if found := _read(file):
            return found
        ids = free()
        replace_file(file, msgspec.json.encode(ids))
    return ids


def free() -> Ids:
    """Return ids that nobody has; they are not taken yet. Raises Conflict: there are none."""
    taken = list(_taken())
    uids = _first_free("/etc/subuid", [line for ids in taken for line in ids.uid_map])
    gids = _first_free("/etc/subgid", [line for ids in taken for line in ids.gid_map])
    return Ids(((0, uids, SIZE),), ((0, gids, SIZE),))


def of_user(name: str, file: File) -> Map:
    """Return a map of all the ids that a file of subordinate ids gives to a user, from 0 on.

    Raises:
        InvalidInput: it gives none.
    """
    lines: list[tuple[int, int, int]] = []
    for first, size in _subordinate(name, file):
        lines.append((sum(line[2] for line in lines), first, size))
    if not lines:
        raise InvalidInput(f"use the ids of {name!r}", f"{file} has none for this user", f"add {name}:FIRST:COUNT")
    return tuple(lines)


def outside(lines: Map, inside: int) -> int | None:
    """Return which id of the host's one inside is; None: it is not in the map. Without a map each is itself."""
    if not lines:
        return inside
    return next((host + inside - first for first, host, size in lines if first <= inside < first + size), None)


def check_in(lines: Map, numbers: Iterable[int], what: str) -> None:
    """See that a container's ids, of a kind that ``what`` names, are in its map. Raises InvalidInput: one is not."""
    for number in numbers:
        if outside(lines, number) is None:
            why = f"the container's user namespace has no id {number}"
            raise InvalidInput(f"run as {what} {number}", why, "choose another, or map more ids")


def give(overlay: "Overlay", config: SandboxConfig) -> None:
    """Let a container's writable layer belong to whom its root directory does in the image, in the container's ids."""
    about = os.stat(overlay.upper)
    uid = outside(config.uid_map, about.st_uid)
    gid = outside(config.gid_map, about.st_gid)
    for directory in (overlay.upper, overlay.work):
        journal.step("chown", os.chown, str(directory), -1 if uid is None else uid, -1 if gid is None else gid)


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    directory = paths.state_root() / "sandboxes"
    directory.mkdir(parents=True, exist_ok=True)
    with store.flocked(directory):
        yield


def _taken() -> Iterator[Ids]:
    for record in store.sandboxes():
        yield Ids(record.config.uid_map, record.config.gid_map)
    for file in (paths.data_root() / "volumes").glob(f"*/{POD_FILE}"):
        if found := _read(file):
            yield found


def _read(file: Path) -> Ids | None:
    try:
        return decoding.from_json(file.read_bytes(), Ids)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _first_free(file: File, taken: list[tuple[int, int, int]]) -> int:
    """Return the first id of a free range."""
    ranges = next((found for user in USERS if (found := _subordinate(user, file))), [DEFAULT])
    used = [range(host, host + size) for _, host, size in taken]
    for first, count in ranges:
        for block in range(first, first + count - SIZE + 1, SIZE):
            if not any(one.start < block + SIZE and block < one.stop for one in used):
                return block
    why = f"the ranges of {SIZE} in {file} ({', '.join(f'{first}:{count}' for first, count in ranges)}) are all taken"
    raise Conflict("find ids for a user namespace", why, f"give more to {USERS[0]} there, or remove containers")


def _subordinate(user: str, file: File) -> list[Range]:
    """Return the ranges that a file gives to a user; lines that make no sense are passed over, as in subuid(5)."""
    try:
        text = Path(file).read_text()
    except FileNotFoundError:
        return []
    rows = (line.split(":") for line in text.splitlines())
    return [
        (int(row[1]), int(row[2]))
        for row in rows
        if len(row) == 3 and row[0] == user and row[1].isdecimal() and row[2].isdecimal() and int(row[2])
    ]
