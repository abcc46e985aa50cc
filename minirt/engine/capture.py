"""ExecSync: run a command in a container and keep what it writes, within limits of time and size."""

import os
import select
import time

from msgspec import Struct

from minirt.engine import containers
from minirt.engine.records import ContainerRecord
from minirt.errors import MinirtError
from minirt.shim import protocol
from minirt.shim.client import ShimClient

MAX_BYTES = 16 << 20
SIGKILL = 9


class Captured(Struct):
    """What a command wrote (cut at 16 MiB a stream), and its exit code; None if it ran out of time."""

    stdout: bytes
    stderr: bytes
    exit_code: int | None


def run(record: ContainerRecord, args: tuple[str, ...], timeout_s: float) -> Captured:
    """Run ``args`` in a running container; kill it after ``timeout_s`` seconds (0: never).

    It is over when the command ends, even if something it left behind still holds its output open.

    Raises:
        Conflict: the container does not run.
        CommandNotFound, NotExecutable: the command.
    """
    session = os.urandom(8).hex()
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    out_r, out_w = os.pipe2(os.O_CLOEXEC)
    err_r, err_w = os.pipe2(os.O_CLOEXEC)
    try:
        with ShimClient(record.sandbox_id) as shim:
            process = containers.exec_process(record, args)
            try:
                shim.call(protocol.Exec(container=record.id, session=session, process=process), [null, out_w, err_w])
            finally:
                for fd in (null, out_w, err_w):
                    os.close(fd)
            wait_id = shim.send(protocol.Wait(container=record.id, session=session))
            return _collect(record, shim, session, wait_id, {out_r: b"", err_r: b""}, timeout_s)
    finally:
        os.close(out_r)
        os.close(err_r)


def _collect(
    record: ContainerRecord, shim: ShimClient, session: str, wait_id: int, found: dict[int, bytes], timeout_s: float
) -> Captured:
    poll = select.poll()
    for fd in (*found, shim.fileno()):
        poll.register(fd, select.POLLIN)
    for fd in found:
        os.set_blocking(fd, False)
    deadline = time.monotonic() + timeout_s if timeout_s else None
    code: int | None = None
    late = False
    while True:
        left_ms = None if deadline is None or late else max(0, int((deadline - time.monotonic()) * 1000))
        ready = [fd for fd, _ in poll.poll(left_ms)]
        if not ready:
            late = True
            _kill(record, session)
        for fd in ready:
            if fd != shim.fileno() and not _read(fd, found):
                poll.unregister(fd)
        if shim.fileno() in ready:
            event = shim.next_event()
            if event.get("id") == wait_id:
                code = event["ok"]["exit_code"]
                break
    for fd in found:
        while _read(fd, found):
            pass
    stdout, stderr = found.values()
    return Captured(stdout, stderr, None if late else code)


def _read(fd: int, found: dict[int, bytes]) -> bool:
    """Take one piece; False at the end, or when there is nothing more for now."""
    try:
        data = os.read(fd, 1 << 16)
    except BlockingIOError:
        return False
    found[fd] += data[: MAX_BYTES - len(found[fd])]
    return bool(data)


def _kill(record: ContainerRecord, session: str) -> None:
    try:
        with ShimClient(record.sandbox_id) as other:
            other.call(protocol.Kill(container=record.id, session=session, signal=SIGKILL))
    except MinirtError:
        return  # it has just ended by itself
