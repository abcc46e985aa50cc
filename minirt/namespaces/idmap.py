"""Mounts whose files belong to other ids than on disk: the ids of a user namespace that exists for nothing else.

    init ── clone3(CLONE_NEWUSER) ──▶ helper: opens its own namespace, says its pid, and waits
     │◀── descriptor, pid ─────────────┘
     └── writes its uid_map and gid_map, lets it end: the descriptor keeps the namespace ── mount_setattr(IDMAP)

Source: mount_setattr(2), "ID-mapped mounts"; user_namespaces(7).
"""

import errno
import functools
import itertools
import os
from typing import NoReturn

from minirt import journal
from minirt.errors import InvalidInput, StepFailed
from minirt.linux import fds, mount, process, sockets
from minirt.linux.sockets import Socket

Map = tuple[tuple[int, int, int], ...]
"""Lines of a uid_map: the id on disk, the id that is seen, how many."""

WHERE = (
    "file systems without idmapped mounts (mount_setattr(2) lists those with), and mounts with a map already, cannot"
)


MOST_LINES = 340
LAST_ID = 2**32 - 2
"""4294967295 is no id: it is the -1 of setresuid(2)."""


def check(lines: Map, what: str) -> None:
    """See that the kernel will take a map; ``what`` names it.

    Raises:
        InvalidInput: it has too many lines, an empty one, ids that there are not, or ids that overlap.
    """
    if len(lines) > MOST_LINES:
        raise InvalidInput(f"use {what}", f"it has {len(lines)} lines, and a map has at most {MOST_LINES}")
    for line in lines:
        first, second, size = line
        if size < 1:
            raise InvalidInput(f"use {what}", f"{_shown(line)} maps no id at all", "map one id at least")
        if min(first, second) < 0 or max(first, second) + size - 1 > LAST_ID:
            raise InvalidInput(f"use {what}", f"{_shown(line)} leads out of the ids, 0 to {LAST_ID}")
    for column, side in enumerate(("inside", "outside")):
        ordered = sorted(lines, key=lambda line: line[column])
        for before, line in itertools.pairwise(ordered):
            if before[column] + before[2] > line[column]:
                why = f"{_shown(before)} and {_shown(line)} overlap {side}"
                raise InvalidInput(f"use {what}", why, "map each id once")


def check_root(lines: Map, what: str) -> None:
    """See that a map has a line for root. Raises InvalidInput: it has none."""
    if not any(first == 0 for first, _, _ in lines):
        why = "it has no line for id 0, and it is root inside who sets the container up"
        raise InvalidInput(f"use {what}", why, "map 0, too")


def _shown(line: tuple[int, int, int]) -> str:
    return ":".join(map(str, line))


def apply(tree: int, source: str, uids: Map, gids: Map, *, below: bool) -> None:
    """Map the ids of a detached mount of ``source``, and with ``below`` of those mounted in it.

    Raises:
        StepFailed: the kernel refused the map, or EINVAL or EPERM: the file system cannot.
    """
    reach = mount.AT_RECURSIVE if below else 0
    try:
        mount.mount_setattr(tree, "", reach, to_set=mount.MOUNT_ATTR_IDMAP, userns_fd=_user_namespace(uids, gids))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
        what = f"map the ids of the files in {source}"
        raise StepFailed.from_os_error(what, error, stage=journal.stage, step="mount_setattr", do=WHERE) from error


def write(pid: str | int, uids: Map, gids: Map) -> None:
    """Write the maps of a process's user namespace, uids before gids, each with one write.

    setgroups stays allowed: only a writer without CAP_SETGID outside would have to give it up first.

    Raises OSError: EINVAL (ids that overlap, or lead to ids that this process does not have), EPERM.
    Source: user_namespaces(7), "Defining user and group ID mappings"
    """
    for name, lines in (("uid_map", uids), ("gid_map", gids)):
        fds.write_file(f"/proc/{pid}/{name}", "".join(f"{a} {b} {n}\n" for a, b, n in lines))


@functools.cache
def _user_namespace(uids: Map, gids: Map) -> int:
    """Return the descriptor of a new user namespace with these maps. It stays open, for the mounts that are to come:
    the process that makes mounts, a stage or an init, soon ends or executes a program."""
    ours, theirs = sockets.pair()
    with ours:
        with theirs:
            pid, pidfd = process.clone3(process.CLONE_NEWUSER)
            if pid == 0:
                ours.close()
                _be_helper(theirs)
        os.close(pidfd)
        try:
            name, received = sockets.receive(ours)
            write(name.decode(), uids, gids)
        finally:
            ours.close()
            os.waitpid(pid, 0)
    return received[0]


def _be_helper(pair: Socket) -> NoReturn:
    """Hand over this process's user namespace, and its pid as this /proc has it; stay while they are needed."""
    try:
        sockets.send(
            pair, os.readlink("/proc/self").encode(), [os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)]
        )
        pair.recv(1)
    finally:
        os._exit(0)
