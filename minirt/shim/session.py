"""Exec sessions: one more process in a running container (minirt.oci.joining).

Its stdio are the caller's own pipes, or a terminal whose master the caller gets: the shim copies nothing.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

from minirt import journal
from minirt.cgroups import lifecycle
from minirt.errors import Conflict, MinirtError, ShimError
from minirt.linux import process
from minirt.oci import executor, joining, sync
from minirt.oci.compile import compile_process
from minirt.oci.joining import personality_of
from minirt.oci.spec import Process
from minirt.shim.container import Container, Reply
from minirt.shim.loop import Loop


class Session:
    """One exec'd process. ``started`` is replied to once execve has succeeded or failed; waiters when it ends."""

    def __init__(
        self,
        loop: Loop,
        session_id: str,
        container: Container,
        spec: Process,
        last_cap: int,
        ended: Callable[["Session", int], object],
    ) -> None:
        self.id = session_id
        self.container = container
        self.exit: dict[str, Any] | None = None
        self.waiters: list[Reply] = []
        self._loop = loop
        self._ended = ended
        self._spec = spec
        self._inside = tuple(compile_process(spec, last_cap, console=False, filter=container.plan.filter))
        self._launched: executor.Launched | None = None
        self._started: Reply | None = None
        self._master = -1
        self._error: MinirtError | None = None
        self._at_gate = False
        self._own_cgroup = ""

    @property
    def pid(self) -> int:
        """Return the process's host pid (0 before it exists)."""
        return self._launched.pid if self._launched else 0

    def start(self, stdio: tuple[int, int, int], started: Reply, *, apart: bool = False) -> None:
        """Clone and execute it; ``apart`` in a cgroup of its own, unless the container itself has made some.

        Raises:
            Conflict: the container does not run, or is frozen (a clone into a frozen cgroup would hang).
        """
        container = self.container
        if container.status.state != "running":
            state = container.status.state
            raise Conflict(f"exec in {container.id}", f"it is {state}", "only a running container can be exec'd into")
        cgroup = container.plan.cgroup
        if cgroup and lifecycle.is_frozen(cgroup):
            raise Conflict(f"exec in {container.id}", "it is paused", "resume it first")
        if apart and cgroup and not container.foreign:
            self._own_cgroup = lifecycle.make_apart(cgroup, f"exec-{self.id}")
        try:
            self._launched = self._launch(self._own_cgroup or cgroup, stdio)
        except (MinirtError, OSError):
            self._leave_cgroup()
            raise
        self._started = started
        self._launched.sync.setblocking(False)
        self._launched.open_gate()  # nobody holds it back
        self._loop.watch(self._launched.sync.fileno(), self._on_sync)

    def _launch(self, cgroup: str, stdio: tuple[int, int, int]) -> executor.Launched:
        container = self.container
        if container.foreign:
            return container.foreign.execute(self.id, self._spec, stdio, functools.partial(self._ended, self))
        plan = container.plan
        host = joining.Host(container.pid, cgroup, plan.has_clocks, personality_of(plan), has_user=plan.has_user)
        return joining.launch(host, self._spec, self._inside, stdio)

    def _on_sync(self) -> None:
        while self._launched and self._launched.sync.fileno() >= 0:
            try:
                message, received = self._launched.receive()
            except BlockingIOError:
                return
            if message is None:
                self._sync_ended()
                return
            self._on_message(message, received)

    def _sync_ended(self) -> None:
        """End of file: after its way through the gate it means that execve has closed the other end."""
        self._close_sync()
        if self._at_gate and not self._error:
            self._note_last_step()
            self._answer({"pid": self.pid, "cgroup": self._own_cgroup})

    def _on_message(self, message: dict[str, Any], received: list[int]) -> None:
        assert self._launched
        kind = message["type"]
        if kind == "step" and journal.sink:
            journal.sink(sync.record_of(message, self._launched.pid))
        elif kind == "terminal":
            self._master = received[0]
        elif kind == "ready":
            self._at_gate = True
        elif kind == "failed":
            self._error = sync.failure(message, self._spec.args[0])
            if self._at_gate:
                self._note_last_step(self._error)

    def _note_last_step(self, error: MinirtError | None = None) -> None:
        if not self.container.foreign:
            executor.note_last_step(self.container.plan.filter, self._spec.args[0], self.pid, error)

    def signal(self, number: int) -> None:
        """Send it a signal. Raises Conflict when it has ended."""
        if self.exit or not self._launched or not self.pid:
            raise Conflict(f"signal exec session {self.id}", "it has ended")
        process.pidfd_send_signal(self._launched.pidfd, number)

    def exited(self, code: int) -> bool:
        """Take its exit; return whether somebody has been told of it."""
        self._on_sync()
        self._close_sync()
        if self._launched and self._launched.pidfd >= 0:
            os.close(self._launched.pidfd)
        self._leave_cgroup()
        self.exit = {"exit_code": code}
        is_told = bool(self._started or self.waiters)
        if self._started:
            what = f"execute {self._spec.args[0]!r}"
            reply, self._started = self._started, None
            reply(self._error or ShimError(what, f"it ended with code {code} before execve", "try again"), [])
        for reply in self.waiters:
            reply(self.exit, [])
        self.waiters = []
        return is_told

    def _leave_cgroup(self) -> None:
        """Remove its cgroup; what it has left running goes on in the container's."""
        if self._own_cgroup:
            lifecycle.dissolve(self._own_cgroup)
            self._own_cgroup = ""

    def _answer(self, ok: dict[str, Any]) -> None:
        if self._started:
            reply, self._started = self._started, None
            reply(ok, [self._master] if self._master >= 0 else [])
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def _close_sync(self) -> None:
        if self._launched and self._launched.sync.fileno() >= 0:
            self._loop.forget(self._launched.sync.fileno())
            self._launched.sync.close()
