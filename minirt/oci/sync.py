"""What a container's init and its shim say to each other, over a SOCK_SEQPACKET pair, one JSON message a packet.

    shim ──▶ init   {"type": "mapped"}          its user namespace, if it is in a new one, has its maps
    init ──▶ shim   {"type": "step", ...}       a journal record (only when the journal is on)
    init ──▶ shim   {"type": "warning", "text"} something optional could not be done
    init ──▶ shim   {"type": "terminal"} + fd   the master of the terminal it made
    init ──▶ shim   {"type": "ready"}           at the gate: all is set up, the executable is found
    shim ──▶ init   {"type": "start"}           through the gate
    init ──▶ shim   {"type": "listener"} + fd   of its seccomp filter, if that asks somebody (minirt-oci only)
    init ──▶ shim   {"type": "failed", ...}     the error, as data; init exits after it
    (end of file after "start")                 execve has succeeded, and closed init's end

The last message before an execve that fails is written by C (no Python runs under a seccomp filter): it has only
``step`` and ``errno``. A pair that ends before "ready" without "failed" is an init that was killed.
"""

import errno
import os
from typing import Any

import msgspec

from minirt import journal
from minirt.errors import CommandNotFound, MinirtError, NotExecutable, StepFailed, from_wire
from minirt.linux import sockets
from minirt.linux.sockets import Socket

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def pair() -> tuple[Socket, Socket]:
    """Return the two ends: the shim's and init's."""
    return sockets.pair()


def send(to: Socket, message: dict[str, Any], fd: int = -1) -> None:
    """Send one message, with a descriptor if ``fd`` is given."""
    sockets.send(to, _encode(message), [fd] if fd >= 0 else [])


def receive(source: Socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Return the next message and its descriptors; None at the end."""
    try:
        data, received = sockets.receive(source)
    except ConnectionResetError:  # the other end has left words of ours unread; what it said comes all the same
        data, received = sockets.receive(source)
    return (_decode(data) if data else None), received


def send_steps_to(to: Socket) -> None:
    """Make the journal of this process speak through the pair."""

    def sink(record: journal.Record) -> None:
        send(to, {"type": "step", "record": list(record)})

    journal.sink = sink


def record_of(message: dict[str, Any], pid: int) -> journal.Record:
    """Return the journal record in a "step", with the pid as the host sees it."""
    return journal.Record(*message["record"])._replace(pid=pid)


def failure(message: dict[str, Any], command: str) -> MinirtError:
    """Return the error in a "failed" message; ``command`` is what was to be executed."""
    if "class" in message:
        return from_wire(message)
    step, number = message["step"], message["errno"]
    if step == "execve":
        return exec_error(command, number)
    do = "see `seccomp` in minirt system check" if step == "seccomp" else ""
    return StepFailed(f"call {step} for {command!r}", os.strerror(number), do, errno=number, stage="init", step=step)


def exec_error(command: str, number: int) -> StepFailed:
    """Return what an execve's errno means to the one who typed the command."""
    why = os.strerror(number)
    kind: type[StepFailed] = NotExecutable
    if number == errno.ENOENT:
        kind, do = CommandNotFound, "it, or the interpreter it names, is not in the image"
    elif number == errno.ENOEXEC:
        do = "is it built for this machine, or a script without #! line?"
    else:
        do = "is it a file, and executable?"
    return kind(f"execute {command!r}", why.lower(), do, errno=number, stage="init", step="execve")
