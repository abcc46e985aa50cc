"""What the engine and a shim say to each other: a SOCK_SEQPACKET unix socket, one JSON message a packet.

    engine ──▶ shim   {"id": 7, "v": 1, "op": "Start", ...}      a request, some with descriptors
    shim ──▶ engine   {"id": 7, "ok": {...}}                     its answer, some with descriptors
    shim ──▶ engine   {"id": 7, "error": {...}}                  or the error, as data
    shim ──▶ engine   {"event": {...}}                           after Subscribe: what happens to containers

An answer comes when the thing has happened: Start's after execve has succeeded, Wait's and Stop's after the exit.
``v`` is the protocol's version: a shim outlives the minirt that made it, so within a version messages only gain fields
with defaults, and List, Stop, Wait and Shutdown keep their form for ever.
"""

from typing import Any

import msgspec
from msgspec import Struct

from minirt.cgroups.resources import Resources
from minirt.namespaces.idmap import Map
from minirt.oci.spec import Process

VERSION = 1
NOBODY = -1
"""The id of an answer to a request that the shim could not read, and of an event."""


class Request(Struct, tag_field="op", forbid_unknown_fields=False):
    """A request; its class is its ``op``."""


class MakeSandbox(Request):
    """Make the pod's cgroup and namespaces, and pin these below the sandbox's directory.

    ``kinds`` are those to make (network, ipc, uts); with ``share_pid`` a pause process holds a PID namespace too.
    ``shm_bytes`` is the size of the pod's /dev/shm (0: none). With ``netlink`` the answer carries a NETLINK_ROUTE
    socket of the network namespace. ``cleanup``: when its container ends and nobody takes care, run
    ``minirt system cleanup``. With ``uid_map`` and ``gid_map`` there is a user namespace, which owns all the others.
    """

    kinds: tuple[str, ...]
    hostname: str
    cgroup: str
    share_pid: bool = False
    shm_bytes: int = 0
    sysctls: dict[str, str] = {}
    resources: Resources = Resources()
    netlink: bool = False
    cleanup: bool = False
    uid_map: Map = ()
    gid_map: Map = ()


class Overlay(Struct):
    """The root's layers, top first, and where the container writes.

    With ``mapped`` the layers' files have the ids of the container's user namespace; what it writes does, anyway.
    """

    lowers: tuple[str, ...]
    upper: str
    work: str
    mapped: bool = False


class Create(Request):
    """Bring a container to its gate. ``bundle`` holds config.json; without ``log_path`` output is not logged.

    With ``start`` it goes through at once, and the answer is Start's. ``cause`` is what the journal names as the
    reason: the field of the user's YAML. ``runtime`` is the program of another OCI runtime that is to run it, "" for
    none.
    """

    container: str
    bundle: str
    overlay: Overlay | None = None
    stdin: bool = False
    log_path: str = ""
    start: bool = False
    cause: str = ""
    runtime: str = ""


class Start(Request):
    """Let it through the gate."""

    container: str


class Attach(Request):
    """Copy the container's output to the pipes sent along (stdout, and stderr if it has no terminal).

    The answer carries a descriptor to write its stdin to, if it has one; with a terminal it is the terminal's
    master, whose window can be resized. With ``once`` the shim keeps no other end of stdin.
    """

    container: str
    once: bool = False


class Exec(Request):
    """Execute another process in the container, on the three descriptors sent along, or on a new terminal.

    With ``process.terminal`` the answer carries the terminal's master. ``apart``: in a cgroup of its own below the
    container's, where that can have one; the answer names it (``cgroup``), so that all that is started can be killed.
    """

    container: str
    session: str
    process: Process
    apart: bool = False


class Kill(Request):
    """Send a signal to the container's init, or to an exec session."""

    container: str
    signal: int
    session: str = ""


class Stop(Request):
    """Send ``signal``, wait ``grace_s`` seconds, then kill the whole cgroup; answer when it has ended."""

    container: str
    signal: int
    grace_s: float


class Wait(Request):
    """Answer with the exit when it comes. ``caretaker``: this caller does what must follow."""

    container: str
    session: str = ""
    caretaker: bool = False


class Delete(Request):
    """Forget a container that has ended."""

    container: str


class List(Request):
    """Name the containers and the shim's version."""


class ReopenLog(Request):
    """Close the log file and open its path anew, after a rotation."""

    container: str


class Subscribe(Request):
    """Send an event whenever a container's state changes."""


class Shutdown(Request):
    """End the shim; refused while a container runs."""


AnyRequest = (
    MakeSandbox | Create | Start | Attach | Exec | Kill | Stop | Wait | Delete | List | ReopenLog | Subscribe | Shutdown
)


class Envelope(Struct):
    """Any request on the wire."""

    id: int
    v: int
    request: AnyRequest


class Answer(Struct, omit_defaults=True):
    """Any answer on the wire."""

    id: int = NOBODY
    ok: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    event: dict[str, Any] | None = None

    @property
    def is_refusal(self) -> bool:
        """Say whether the shim could not read a request at all, and so not whose answer this is."""
        return self.id == NOBODY and self.error is not None


encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(Envelope).decode
decode_answer = msgspec.json.Decoder(Answer).decode
