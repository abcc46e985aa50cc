"""The zygote: a single-threaded process with everything imported, that forks shims.

The command line forks it first of all (``begin``), before anything can start a thread. It imports what a shim needs
while the caller imports what the engine needs, and lives as long as its caller: a shim outlives both.

    caller ──▶ zygote   {"sandbox": "4f2a…", "trace": ""}      make a shim for this sandbox
    zygote ──▶ caller   {"pid": 1234}  or  {"error": {...}}    its socket can be connected to from now on
"""

import _signal  # type: ignore[import-not-found]  # the same without enumerations, which cost 200 kB at first use
import contextlib
import gc
import os
import signal
import socket
import sys
from _thread import allocate_lock
from typing import Any, NoReturn

import msgspec

from minirt import journal
from minirt.errors import MinirtError, ShimError, StepFailed, from_wire
from minirt.linux import fds, sockets

early: "Zygote | None" = None
"""The zygote that ``begin`` has made, until somebody takes it."""


def begin() -> None:
    """Fork a zygote now, for who will ``take`` it later. A command that ends without doing so takes it along."""
    global early
    early = Zygote()


def take() -> "Zygote":
    """Return the zygote that has begun, or a new one."""
    global early
    taken, early = early or Zygote(), None
    return taken


class Zygote:
    """The caller's handle of its zygote. Make it while the process has one thread."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _run(theirs)
        theirs.close()
        self._socket = ours
        self._is_left = False
        self._asking = allocate_lock()

    def spawn_shim(self, sandbox_id: str, trace: str = "") -> int:
        """Return the pid of a new shim, that listens already. ``trace`` is the journal's file ("" for none).

        Any thread may ask; they are answered one at a time.

        Raises:
            ShimError: the zygote is gone.
            StepFailed: the shim's socket cannot be made.
        """
        pid: int = self._ask({"sandbox": sandbox_id, "trace": trace})["pid"]
        return pid

    def rehearse(self, spec: bytes) -> None:
        """Have it do once what its shims will do, with this container's spec as an example (rehearsal.py).

        From then on a shim that waits gives back the memory that it has not changed (linux/memory.py).

        Raises:
            ShimError: the zygote is gone.
            MinirtError: the spec cannot be compiled.
            StepFailed: there is not enough memory.
        """
        self._ask({"rehearse": spec.decode()})

    def _ask(self, request: dict[str, str]) -> dict[str, Any]:
        ended = ShimError("start a shim", "the zygote has ended", "try again")
        try:
            with self._asking:
                sockets.send(self._socket, msgspec.json.encode(request))
                data, _ = sockets.receive(self._socket)
        except ConnectionError as error:
            raise ended from error
        if not data:
            raise ended
        answer: dict[str, Any] = msgspec.json.decode(data)
        if "error" in answer:
            raise from_wire(answer["error"])
        return answer

    def close(self) -> None:
        """Let the zygote end; one that was left to a child is the child's."""
        self._socket.close()
        if not self._is_left:
            with contextlib.suppress(ChildProcessError):  # whoever started us may have ignored SIGCHLD
                os.waitpid(self.pid, 0)

    @property
    def is_alive(self) -> bool:
        """Say whether it can still be asked."""
        try:
            return os.waitpid(self.pid, os.WNOHANG) == (0, 0)
        except ChildProcessError:
            return False

    def fileno(self) -> int:
        """Return the descriptor of the way to the zygote."""
        return self._socket.fileno()

    def leave_to_child(self) -> None:
        """Leave the zygote to the child that this process has just forked: it ends with the child."""
        self._socket.close()
        self._is_left = True


def _run(requests: socket.socket) -> NoReturn:
    try:
        journal.stage = "zygote"
        _keep_only(requests)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            _signal.signal(number, _signal.SIG_IGN)
        _signal.signal(signal.SIGCHLD, _signal.SIG_IGN)  # a shim that ends leaves no zombie
        from minirt.linux import prctl
        from minirt.linux._native import lib

        prctl.set_name("minirt-zygote")
        from minirt.cgroups import devices as devices  # which only containers with rules for them need
        from minirt.oci import direct as direct  # which only exec needs
        from minirt.security.capabilities import last_cap
        from minirt.shim import server

        known = last_cap()
        for name in dir(lib):  # cffi makes a function when it is first asked for: here once, not in each init
            getattr(lib, name)
        gc.collect()
        gc.freeze()
        gc.enable()  # for the shims, that live long
        while data := sockets.receive(requests)[0]:
            request = msgspec.json.decode(data)
            answer = _rehearse(request, known) if "rehearse" in request else _spawn(requests, request, server, known)
            sockets.send(requests, msgspec.json.encode(answer))
    finally:
        os._exit(0)


def _keep_only(requests: socket.socket) -> None:
    """Let go of what was inherited: who reads our caller's output must see its end when the caller ends."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in range(3):
        os.dup2(null, number)
    fds.close_all_but({0, 1, 2, requests.fileno()})


def _rehearse(request: dict[str, str], known: int) -> dict[str, Any]:
    from minirt.linux import memory
    from minirt.shim import rehearsal

    try:
        rehearsal.rehearse(request["rehearse"].encode(), known)
    except (MinirtError, ValueError) as error:
        known_error = error if isinstance(error, MinirtError) else ShimError("rehearse", str(error))
        return {"error": known_error.to_wire()}
    gc.collect()
    gc.freeze()
    try:
        memory.back()
    except OSError as error:
        return {"error": StepFailed.from_os_error("back memory with a file", error, stage="zygote").to_wire()}
    return {}


def _spawn(requests: socket.socket, request: dict[str, str], server: Any, known: int) -> dict[str, Any]:
    try:
        with server.listen(request["sandbox"]) as listener, journal.kept_in(request["trace"]):
            pid = journal.step("fork", os.fork)
            if pid == 0:
                requests.close()
                _shim(listener, request, server, known)
    except OSError as error:
        return {"error": StepFailed.from_os_error("start a shim", error, stage="zygote").to_wire()}
    return {"pid": pid}


def _shim(listener: socket.socket, request: dict[str, str], server: Any, known: int) -> NoReturn:
    try:
        _signal.signal(signal.SIGCHLD, _signal.SIG_DFL)
        server.serve(request["sandbox"], listener, known, request["trace"])
        os._exit(0)
    finally:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
