"""Mounts whose files belong to other ids than on disk: the ids of a user namespace that exists for nothing else.

    init ── clone3(CLONE_NEWUSER) ──▶ helper: opens its own namespace, says its pid, and waits
     │◀── descriptor, pid ─────────────┘
     └── writes its uid_map and gid_map, lets it end: the descriptor keeps the namespace ── mount_setattr(IDMAP)

Source: mount_setattr(2), "ID-mapped mounts"; user_namespaces(7).
"""

import errno
import os
from typing import NoReturn

from minirt import journal
from minirt.errors import StepFailed
from minirt.linux import fds, mount, process, sockets
from minirt.linux.sockets import Socket

Map = tuple[tuple[int, int, int], ...]
"""Lines of a uid_map: the id on disk, the id that is seen, how many."""

WHERE = (
    "file systems without idmapped mounts (mount_setattr(2) lists those with), and mounts with a map already, cannot"
)


def apply(tree: int, source: str, uids: Map, gids: Map, *, below: bool) -> None:
    """Map the ids of a detached mount of ``source``, and with ``below`` of those mounted in it.

    Raises:
        StepFailed: the kernel refused the map, or EINVAL or EPERM: the file system cannot.
    """
    with fds.closing(_user_namespace(uids, gids)) as namespace:
        reach = mount.AT_RECURSIVE if below else 0
        try:
            mount.mount_setattr(tree, "", reach, to_set=mount.MOUNT_ATTR_IDMAP, userns_fd=namespace)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
            what = f"map the ids of the files in {source}"
            raise StepFailed.from_os_error(what, error, stage=journal.stage, step="mount_setattr", do=WHERE) from error


def _user_namespace(uids: Map, gids: Map) -> int:
    """Return the descriptor of a new user namespace with these maps."""
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
            for file, lines in (("uid_map", uids), ("gid_map", gids)):
                fds.write_file(f"/proc/{name.decode()}/{file}", "".join(f"{a} {b} {n}\n" for a, b, n in lines))
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
