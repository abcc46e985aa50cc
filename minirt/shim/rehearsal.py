"""A rehearsal: the zygote does once, with nothing at stake, what each of its shims will do.

What Python does at first use (looking attributes up, specialising code, making caches) is written into pages that a
fork shares: in each shim they would be copied, and the work be done again. Done here it is done for all of them. It
takes a few milliseconds, so only a zygote that will have many children rehearses: the server's.
"""

import _signal  # type: ignore[import-not-found]  # as everywhere in a shim
import socket

import msgspec

from minirt import decoding
from minirt.cgroups import tree
from minirt.oci.compile import compile_spec
from minirt.oci.spec import Spec
from minirt.pod import sandbox
from minirt.security import seccomp
from minirt.shim import protocol, server
from minirt.shim.protocol import Answer, Envelope
from minirt.shim.status import Status

TIMES = 2
"""Some things are made when they are needed for the second time."""


def rehearse(spec: bytes, last_cap: int) -> None:
    """Be a shim without a sandbox, compile a sandbox, and a container of this spec; nothing is made or executed.

    The caller has no children, and takes no notice of SIGCHLD; it still does not when this returns.

    Raises:
        MinirtError: the spec cannot be compiled.
        ValueError: it is none.
    """
    for _ in range(TIMES):
        _be_a_shim(last_cap)
        _read_and_write()
        _compile_sandbox(last_cap)
        known = decoding.from_json(spec, Spec)
        compile_spec(known, "/", None, tree.find(), last_cap, seccomp.filter_of(known.linux.seccomp))


def _be_a_shim(last_cap: int) -> None:
    """Be asked for a list, and to end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, _caller(listener) as caller:
        requests: tuple[protocol.AnyRequest, ...] = (protocol.List(), protocol.Shutdown())
        for number, request in enumerate(requests):
            caller.send(protocol.encode(Envelope(id=number, v=protocol.VERSION, request=request)))
        shim = server.Shim("rehearsal", listener, last_cap)
        try:
            shim.run()
        finally:
            shim.close()
            _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
        protocol.decode_answer(caller.recv(1 << 16))


def _caller(listener: socket.socket) -> socket.socket:
    """Return a connection to a listener, which gets an address that nobody else knows."""
    listener.bind("")
    listener.listen()
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    caller.connect(listener.getsockname())
    return caller


def _read_and_write() -> None:
    """Read the requests that make a pod, and write what comes of them."""
    requests: tuple[protocol.AnyRequest, ...] = (
        protocol.MakeSandbox(kinds=("network", "ipc", "uts"), hostname="pod", cgroup="pod", netlink=True),
        protocol.Create(container="container", bundle="/", overlay=protocol.Overlay(("/",), "/", "/"), start=True),
    )
    for number, request in enumerate(requests):
        protocol.decode_request(protocol.encode(Envelope(id=number, v=protocol.VERSION, request=request)))
        protocol.encode(Answer(id=number, ok={"pid": number, "warnings": []}))
    msgspec.json.encode(Status(state="running", pid=1, start_time=1, created_at=1, started_at=1))


def _compile_sandbox(last_cap: int) -> None:
    plan = sandbox.Plan(
        directory="/",
        kinds=("network", "ipc", "uts"),
        hostname="pod",
        cgroup="pod",
        share_pid=True,
        shm_bytes=1,
        last_cap=last_cap,
    )
    for operations in (plan.outside, plan.keeper, plan.to_pause, plan.pause):
        operations()
    plan.leaf("pod")
