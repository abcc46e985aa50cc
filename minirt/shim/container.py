"""One container in its shim, from the gate to its end.

    create ─▶ (init prepares) ─▶ ready ─ start ─▶ (execve) ─▶ running ─▶ exit: OOM counter read, cgroup killed and
                     └────── failed ──────┴──────────┘                   removed, streams drained, status written

A container's life is its init's: whatever it leaves running ends with it.
"""

import contextlib
import os
import select
import time
from collections.abc import Callable
from typing import Any

from msgspec import structs

from minirt import journal
from minirt.cgroups import lifecycle
from minirt.cgroups.events import OomWatch
from minirt.errors import Conflict, MinirtError, ShimError, StepFailed
from minirt.linux import process
from minirt.oci import executor, sync
from minirt.oci.plan import Plan
from minirt.shim import status as statuses
from minirt.shim.foreign import Foreign
from minirt.shim.logs import LogWriter
from minirt.shim.loop import Loop, Timer
from minirt.shim.status import Status
from minirt.shim.streams import Output

SIGKILL = 9
OOM_RECENT_S = 2.0

Reply = Callable[[dict[str, Any] | MinirtError, list[int]], None]


class Container:
    """A container that this shim made. Every ``reply`` is called exactly once."""

    def __init__(self, loop: Loop, container_id: str, plan: Plan, changed: Callable[["Container"], None]) -> None:
        self.id = container_id
        self.plan = plan
        self.log: LogWriter | None = None
        self.status = Status(state="created", created_at=time.time_ns())
        self.master = -1
        self.stdin = -1
        self.outputs: dict[str, Output] = {}
        self.waiters: list[Reply] = []
        self._loop = loop
        self._changed = changed
        self._pending: Reply | None = None
        self._launched: executor.Launched | None = None
        self._oom: OomWatch | None = None
        self._oom_seen = (0, 0.0)
        self._killed = False
        self._warnings = list(plan.warnings)
        self._grace: Timer | None = None
        self._error: MinirtError | None = None
        self._starting = False
        self._ready = False
        self.foreign: Foreign | None = None

    # --- birth

    def create(self, *, stdin: bool, terminal: bool, log_path: str, start: bool, reply: Reply) -> None:
        """Launch init; ``reply`` when it stands at its gate, or with the error.

        With ``start`` the gate is open already when init comes to it: nobody needs to be woken, and ``reply`` comes
        once execve has succeeded. Its pid is on disk before the gate opens in both cases.
        """
        self._pending = reply
        self._starting = start
        try:
            self.log = LogWriter(log_path) if log_path else None
            self._launch(*_pipes(stdin=stdin and not terminal, terminal=terminal))
        except MinirtError as error:
            self._abandon(error)
        except OSError as error:
            self._abandon(StepFailed.from_os_error(f"prepare {self.id}", error, stage="shim"))

    def _launch(self, theirs: tuple[int, int, int], ours: tuple[int, int, int]) -> None:
        try:
            launch = self.foreign.launch if self.foreign else executor.launch
            self._launched = launch(self.plan, theirs)
        except (MinirtError, OSError):
            for fd in ours:
                _close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self._warnings += self._launched.warnings
        self.stdin = ours[0]
        for name, fd in (("stdout", ours[1]), ("stderr", ours[2])):
            if fd >= 0:
                self.outputs[name] = Output(self._loop, fd, name, self.log)
        self._launched.sync.setblocking(False)
        self._loop.watch(self._launched.sync.fileno(), self._on_sync)
        self._watch_oom()
        if self._starting and self._launched.pid:
            self._record_pid()
            self._open_gate()

    def _watch_oom(self) -> None:
        self._oom = OomWatch.open(self.plan.cgroup) if self.plan.cgroup else None
        if self._oom:
            self._oom_seen = (self._oom.oom_kills() or 0, 0.0)
            self._loop.watch(self._oom.fileno(), self._on_oom, select.EPOLLPRI)

    def _on_oom(self) -> None:
        kills = (self._oom.oom_kills() if self._oom else 0) or 0
        if kills > self._oom_seen[0]:
            self._oom_seen = (kills, time.monotonic())

    def _on_sync(self) -> None:
        while self._launched and self._launched.sync.fileno() >= 0:
            try:
                message, received = sync.receive(self._launched.sync)
            except BlockingIOError:
                return
            if message is None:
                self._sync_ended()
                return
            self._on_message(message, received)

    def _on_message(self, message: dict[str, Any], received: list[int]) -> None:
        kind = message["type"]
        assert self._launched
        if kind == "step":
            if journal.sink:
                journal.sink(sync.record_of(message, self._launched.pid))
        elif kind == "warning":
            self._warnings.append(message["text"])
        elif kind == "terminal":
            self.master = received[0]
            self.outputs["stdout"] = Output(self._loop, os.dup(self.master), "stdout", self.log)
        elif kind == "ready":
            self._at_gate()
        elif kind == "failed":
            self._failed(sync.failure(message, self.plan.command))

    def _at_gate(self) -> None:
        self._ready = True
        if not self.status.pid:
            self._record_pid()
            if self._starting:
                self._open_gate()
        if not self._starting:
            self._answer({"pid": self.status.pid, "warnings": self._warnings})

    def _record_pid(self) -> None:
        assert self._launched
        pid = self._launched.pid
        self._update(
            structs.replace(self.status, pid=pid, start_time=process.start_time(pid), warnings=tuple(self._warnings))
        )

    def _open_gate(self) -> None:
        assert self._launched
        with contextlib.suppress(BrokenPipeError):  # init has died: its exit is on the way, and tells why
            sync.send(self._launched.sync, {"type": "start"})

    def start(self, reply: Reply) -> None:
        """Let init through the gate; ``reply`` once execve has succeeded, or with why it has not."""
        if self.status.state != "created" or self._pending or not self._launched:
            raise Conflict(f"start {self.id}", f"it is {self.status.state}", "only a created container can be started")
        self._pending = reply
        self._starting = True
        self._open_gate()

    def _sync_ended(self) -> None:
        """End of file: after the gate it means that execve has closed init's end, before it that init was killed."""
        self._close_sync()
        if self._pending and self._ready and not self._error:
            self._note_last_step()
            warnings = tuple(self._warnings)
            self._update(structs.replace(self.status, state="running", started_at=time.time_ns(), warnings=warnings))
            if not self._error:
                self._answer({"pid": self.status.pid, "warnings": self._warnings})

    def _failed(self, error: MinirtError) -> None:
        """Keep the error for ``exited``, which comes at once: init leaves after its last word."""
        if self._ready:
            self._note_last_step(error)
        self._error = error

    def _note_last_step(self, error: MinirtError | None = None) -> None:
        """Record what init did out of the journal's sight; another runtime's says nothing of it."""
        if self._launched and not self.foreign:
            executor.note_last_step(self.plan.filter, self.plan.command, self._launched.pid, error)

    # --- end

    @property
    def pid(self) -> int:
        """Return init's host pid (0 before it exists)."""
        return self._launched.pid if self._launched else 0

    @property
    def ended(self) -> bool:
        """Say whether it has exited or never came to be."""
        return self.status.state == "exited"

    def signal(self, number: int) -> None:
        """Send a signal to init. Raises Conflict when it has ended."""
        if not self.pid or not self._launched or self.ended:
            raise Conflict(f"signal {self.id}", "it is not running", "see minirt ps -a")
        self._killed = self._killed or number == SIGKILL
        process.pidfd_send_signal(self._launched.pidfd, number)

    def stop(self, number: int, grace_s: float) -> None:
        """Ask it to end; after ``grace_s`` seconds kill everything in its cgroup."""
        if self.ended:
            return
        if grace_s > 0 and number != SIGKILL and self.pid:
            if self._grace:
                self._grace.cancel()
            else:  # who asks again hurries it, and does not ask it twice
                self.signal(number)
            self._grace = self._loop.after(grace_s, self.kill_all)
        else:
            self.kill_all()

    def kill_all(self) -> None:
        """SIGKILL every process of the container."""
        self._killed = True
        if self.foreign:
            self.foreign.kill()
        if self.plan.cgroup:
            lifecycle.kill(self.plan.cgroup, wait=False)
        elif self._launched and self.pid and not self.ended:
            process.pidfd_send_signal(self._launched.pidfd, SIGKILL)

    def exited(self, code: int) -> None:
        """Take init's exit: end what it left, drain its streams, write its status, answer who waits."""
        if self.foreign and self.foreign.holds(code):
            return
        self._on_sync()
        self._close_sync()
        if self._grace:
            self._grace.cancel()
        oom = self._was_oom(code)
        self._remove_cgroup()
        for output in self.outputs.values():
            output.finish()
        self._release()
        if self.foreign and (warning := self.foreign.forget()):
            self.status = structs.replace(self.status, warnings=(*self.status.warnings, warning))
        if self.status.state == "running" and not self._error:
            reason = "OOMKilled" if oom else "Completed" if code == 0 else "Error"
            self._update(self.status.exited(code, reason))
        else:
            self._abandon(self._error or self._died_early(code))

    def _died_early(self, code: int) -> MinirtError:
        what = f"start {self.plan.command}"
        if code == 128 + SIGKILL and self._oom_seen[0]:
            return ShimError(what, "its memory limit is too small to start in", "raise the limit")
        return ShimError(what, f"its init ended with code {code} before the command was executed", "try again")

    def _was_oom(self, code: int) -> bool:
        if not self._oom or code != 128 + SIGKILL or self._killed:
            return False
        kills = self._oom.oom_kills() or 0
        before, at = self._oom_seen
        self._oom_seen = (kills, at)
        return kills > before or (kills > 0 and time.monotonic() - at < OOM_RECENT_S)

    def _remove_cgroup(self) -> None:
        if self._oom:
            self._loop.forget(self._oom.fileno())
            self._oom.close()
            self._oom = None
        if self.plan.cgroup:
            lifecycle.end(self.plan.cgroup)

    def _release(self) -> None:
        if self.log:
            self.log.close()
            self.log = None
        for fd in (self.master, self.stdin, self._launched.pidfd if self._launched else -1):
            _close(fd)
        self.master = self.stdin = -1
        if self._launched:
            self._launched.pidfd = -1

    def _abandon(self, error: MinirtError) -> None:
        """Let go of a start that failed. A Conflict is about a cgroup in use: that one is somebody else's."""
        if self._launched is None:
            if not isinstance(error, Conflict):
                self._remove_cgroup()
            self._release()
        code = {127: 127, 126: 126}.get(error.exit_code, 128)
        self._update(self.status.exited(code, "StartError", str(error)))
        if self._pending:
            reply, self._pending = self._pending, None
            reply(error, [])

    def _update(self, status: Status) -> None:
        """Write its status. On a full disk it is not started; an exit is told to who asks, though not written."""
        self.status = status
        try:
            statuses.write(self.id, status)
        except OSError as error:
            if status.state != "exited":
                self._error = self._error or StepFailed.from_os_error(f"record the start of {self.id}", error)
                self.kill_all()
        if status.state == "exited":
            for reply in self.waiters:
                reply(exit_of(status), [])
            self.waiters = []
        self._changed(self)

    def _answer(self, ok: dict[str, Any]) -> None:
        if self._pending:
            reply, self._pending = self._pending, None
            reply(ok, [])

    def _close_sync(self) -> None:
        if self._launched and self._launched.sync.fileno() >= 0:
            self._loop.forget(self._launched.sync.fileno())
            self._launched.sync.close()


def exit_of(status: Status) -> dict[str, Any]:
    """Return what Wait answers: the exit code and why."""
    return {"exit_code": status.exit_code, "reason": status.reason, "message": status.message}


def _pipes(*, stdin: bool, terminal: bool) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return (init's ends, ours) of stdin, stdout, stderr; -1 for an end we have not."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    if terminal:
        return (null, os.dup(null), os.dup(null)), (-1, -1, -1)
    in_r, in_w = os.pipe2(os.O_CLOEXEC) if stdin else (null, -1)
    if stdin:
        os.close(null)
    out_r, out_w = os.pipe2(os.O_CLOEXEC)
    err_r, err_w = os.pipe2(os.O_CLOEXEC)
    return (in_r, out_w, err_w), (in_w, out_r, err_r)


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
