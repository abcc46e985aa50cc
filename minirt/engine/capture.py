"""ExecSync: run a command in a container and keep what it writes, within limits of time and size."""

import contextlib
import os
import select
import time
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from minirt.cgroups import lifecycle
from minirt.engine import containers
from minirt.engine.records import ContainerRecord
from minirt.errors import MinirtError
from minirt.linux import fds, process
from minirt.shim import protocol
from minirt.shim.client import ShimClient

MAX_BYTES = (16 << 20) - 4096
"""Of both streams together, and so less than the largest message that a kubelet takes (16 MiB)."""
SIGKILL = 9


class Captured(Struct):
    """What a command wrote (cut at MAX_BYTES), and its exit code; None if it ran out of time."""

    stdout: bytes
    stderr: bytes
    exit_code: int | None


def run(record: ContainerRecord, args: tuple[str, ...], timeout_s: float) -> Captured:
    """Run ``args`` in a running container; after ``timeout_s`` seconds (0: never) kill it and all below it.

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
            spec = containers.exec_process(record, args)
            try:
                request = protocol.Exec(record.id, session, spec, apart=timeout_s > 0)
                begun = shim.call(request, [null, out_w, err_w])
            finally:
                for fd in (null, out_w, err_w):
                    os.close(fd)
            wait_id = shim.send(protocol.Wait(container=record.id, session=session))
            found = {out_r: bytearray(), err_r: bytearray()}
            return _collect(shim, wait_id, found, timeout_s, lambda: _kill(record, session, begun))
    finally:
        os.close(out_r)
        os.close(err_r)


def _collect(
    shim: ShimClient, wait_id: int, found: dict[int, bytearray], timeout_s: float, kill: Callable[[], None]
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
            kill()
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
    stdout, stderr = map(bytes, found.values())
    return Captured(stdout, stderr, None if late else code)


def _read(fd: int, found: dict[int, bytearray]) -> bool:
    """Take one piece; False at the end, or when there is nothing more for now."""
    try:
        data = os.read(fd, 1 << 16)
    except BlockingIOError:
        return False
    found[fd] += data[: MAX_BYTES - sum(map(len, found.values()))]
    return bool(data)


def _kill(record: ContainerRecord, session: str, begun: dict[str, Any]) -> None:
    """Kill an exec'd process and all that it has started: by its cgroup, which nobody leaves by forking.

    Where it has none of its own (the container has made some), only its descendants are found.
    """
    if cgroup := begun.get("cgroup"):
        lifecycle.kill(cgroup)
    else:
        _kill_descendants(record, session, begun["pid"])


def _kill_descendants(record: ContainerRecord, session: str, pid: int) -> None:
    """Kill a process and those below it, pinned first by their pidfds, also where they left its session."""
    with contextlib.ExitStack() as pinned:
        below = [pinned.enter_context(fds.closing(fd)) for fd in map(_pidfd, descendants(pid)) if fd >= 0]
        with contextlib.suppress(MinirtError), ShimClient(record.sandbox_id) as other:  # it may just have ended
            other.call(protocol.Kill(container=record.id, session=session, signal=SIGKILL))
        for pidfd in below:
            with contextlib.suppress(ProcessLookupError):
                process.pidfd_send_signal(pidfd, SIGKILL)


def _pidfd(pid: int) -> int:
    try:
        return process.pidfd_open(pid)
    except ProcessLookupError:
        return -1


def descendants(pid: int) -> list[int]:
    """Return the host pids of all below a process, parents first. Source: proc_tid_children(5)."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = _children(waiting.pop(0))
        found += children
        waiting += children
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):  # it has ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    return found
