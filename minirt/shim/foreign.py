"""Containers of another OCI runtime, in our shim: its commands are programs that the shim runs and sees the end of.

    Container ─ pair ─ StandIn ◀─ runc create … : ready ─ start ─▶ runc start … : end of file, it runs
    Session ── pair ─ StandIn ◀─ runc exec --detach … : ready, end of file

A ``StandIn`` says on the pair what an init of ours would say (minirt.oci.sync): all else is as with one. What the
runtime leaves when its command has ended is the shim's child, for a shim is a subreaper; the pid is in the pid-file.
It may have ended by then, and may have been collected before the command itself was: ``Programs`` remembers.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from minirt import journal
from minirt.cgroups.tree import Tree
from minirt.errors import MinirtError, NotFound, ShimError
from minirt.linux import fds, operation, process, sockets
from minirt.linux.operation import Operation
from minirt.linux.sockets import Socket
from minirt.namespaces.rootfs import MountOverlay
from minirt.oci import executor, foreign, sync
from minirt.oci.executor import Launched
from minirt.oci.foreign import Runtime
from minirt.oci.init import Init
from minirt.oci.plan import Plan
from minirt.oci.spec import Process, Spec
from minirt.shim.loop import Loop

COMMAND_S = 60.0
"""After so long a runtime's command is killed: whoever waits for it is told."""

SIGKILL = 9
BIRTH = ("create", "start")
"""The commands without whose end there is no container to stop."""
Done = Callable[[int, MinirtError | None], object]
Failed = Callable[[MinirtError | None], object]
Ended = Callable[[int], object]
Stdio = tuple[int, int, int]


class Programs:
    """The commands under way. Exits of children that are nobody's yet are kept while there is one."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._commands: dict[int, _Command] = {}
        self._exits: dict[int, int] = {}
        self._idle: list[Callable[[], object]] = []

    def run(self, steps: Sequence[Operation[Init]], stdio: Stdio, name: str, done: Done) -> Launched:
        """Run a command; ``done`` is called with its exit code, and with what kept it from being executed."""
        launched = executor.spawn((), 0, tuple(steps), stdio, -1, f"clone3 for {name}", name=name)
        self._commands[launched.pid] = _Command(self.loop, launched, name, done)
        return launched

    def ended(self, pid: int, code: int) -> bool:
        """Take the end of a child if it is a command's; say whether it was."""
        command = self._commands.pop(pid, None)
        if not command:
            return False
        command.ended(code)
        if not self._commands:
            self._exits.clear()
            waiting, self._idle = self._idle, []
            for callback in waiting:
                callback()
        return True

    def note(self, pid: int, code: int) -> None:
        """Remember the end of a child that nobody knows, while a command may yet say whose it was."""
        if self._commands:
            self._exits[pid] = code

    def exit_of(self, pid: int) -> int | None:
        """Return the exit code of a child that has ended already."""
        return self._exits.pop(pid, None)

    def when_idle(self, callback: Callable[[], object]) -> None:
        """Call back when no command is under way."""
        self._idle.append(callback) if self._commands else callback()


class _Command:
    """One command: between its clone3 and its execve it speaks on a pair, as any child of ours."""

    def __init__(self, loop: Loop, launched: Launched, name: str, done: Done) -> None:
        self._loop = loop
        self._launched = launched
        self._name = name
        self._done = done
        self._error: MinirtError | None = None
        launched.sync.setblocking(False)
        loop.watch(launched.sync.fileno(), self._on_sync)
        self._limit = loop.after(COMMAND_S, self._too_late)

    def _on_sync(self) -> None:
        while self._launched.sync.fileno() >= 0:
            try:
                message, _ = sync.receive(self._launched.sync)
            except BlockingIOError:
                return
            if message is None:
                self._loop.forget(self._launched.sync.fileno())
                self._launched.sync.close()
                if not self._error:
                    journal.note("execve", self._name, pid=self._launched.pid, of=self._name)
            elif message["type"] == "step" and journal.sink:
                journal.sink(sync.record_of(message, self._launched.pid))
            elif message["type"] == "failed":
                self._error = sync.failure(message, self._name)

    def _too_late(self) -> None:
        self._error = ShimError(self._name, f"it did not end in {COMMAND_S:.0f} s, and was killed")
        process.pidfd_send_signal(self._launched.pidfd, SIGKILL)

    def ended(self, code: int) -> None:
        """Hear its last words, and tell who asked for it."""
        self._limit.cancel()
        self._on_sync()
        os.close(self._launched.pidfd)
        self._done(code, self._error)


class StandIn:
    """Speaks on the pair for a process that a runtime is to make; ``launched`` has the pid 0 until it has."""

    def __init__(self, programs: Programs, runtime: Runtime, name: str, *, terminal: bool) -> None:
        """Have the process known by the pid-file ``name``.pid, and its terminal sent to ``name``.sock."""
        self._programs = programs
        self._pid_file = runtime.path(f"{name}.pid")
        self._terminal = Terminal(runtime, name) if terminal else None
        outer, self.inner = sync.pair()
        self.launched = Launched(0, -1, outer)

    def options(self) -> tuple[str, ...]:
        """Return what the runtime's command is told of this."""
        console = ("--console-socket", self._terminal.name) if self._terminal else ()
        return ("--pid-file", self._pid_file, *console)

    def arrived(self, error: MinirtError | None) -> int | None:
        """Say that the process is there, or why not. Return its exit code if it has ended already, or never was."""
        try:
            if error:
                raise error
            known = self._adopt()
            if self._terminal:
                self._terminal.hand_on(self.inner)
        except MinirtError as found:
            self.fail(found)
            return 1
        finally:
            self._tidy()
        _say(self.inner, {"type": "ready"})
        return known

    def _adopt(self) -> int | None:
        """Take the process by the pid that its runtime has written down."""
        launched = self.launched
        try:
            with open(self._pid_file) as file:
                launched.pid = int(file.read())
            known = self._programs.exit_of(launched.pid)
            if known is None:
                launched.pidfd = process.pidfd_open(launched.pid)
        except (OSError, ValueError) as error:
            raise ShimError("find the process that the runtime made", str(error)) from error
        return known

    def _tidy(self) -> None:
        if self._terminal:
            self._terminal.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._pid_file)

    def fail(self, error: MinirtError) -> None:
        """Say why the process does not run: the last word."""
        _say(self.inner, {"type": "failed", **error.to_wire()})
        self.inner.close()

    @contextlib.contextmanager
    def begun(self) -> Iterator[Launched]:
        """Yield what is launched; let go of everything if the command cannot even be begun."""
        try:
            yield self.launched
        except (MinirtError, OSError):
            self.inner.close()
            self.launched.sync.close()
            self._tidy()
            raise


class Foreign:
    """One container of another runtime. ``ended`` is its Container's ``exited``."""

    def __init__(
        self, programs: Programs, runtime: Runtime, spec: Spec, overlay: MountOverlay, tree: Tree, ended: Ended
    ) -> None:
        self._programs = programs
        self._runtime = runtime
        self._spec = spec
        self._overlay = overlay
        self._tree = tree
        self._ended = ended
        self._exit: int | None = None
        self._starting = False
        self._over = False
        self._command: Launched | None = None

    def launch(self, plan: Plan, stdio: Stdio) -> Launched:
        """Have the runtime create the container.

        Raises:
            Conflict: the cgroup is somebody else's.
            StepFailed: the kernel refused a step.
        """
        operation.run(list(plan.shim), None)
        os.makedirs(self._runtime.directory, 0o700, exist_ok=True)
        config = foreign.config_of(self._spec, self._overlay.target, self._tree)
        _write(self._runtime.path("config.json"), config)
        stand_in = StandIn(self._programs, self._runtime, "init", terminal=self._spec.process.terminal)
        words = ("create", "--bundle", self._runtime.directory, *stand_in.options())
        with stand_in.begun() as launched:
            steps = foreign.with_root(self._spec, self._overlay, self._tree)
            self._run("create", words, stdio, functools.partial(self._created, stand_in), steps=steps)
        return launched

    def _created(self, stand_in: StandIn, error: MinirtError | None) -> None:
        """Wait at the gate in init's place."""
        known = stand_in.arrived(error)
        if not error and stand_in.inner.fileno() >= 0:
            self._programs.loop.watch(stand_in.inner.fileno(), functools.partial(self._at_gate, stand_in))
        if known is not None:
            self._ended(known)

    def _at_gate(self, stand_in: StandIn) -> None:
        """Have it started, unless nobody wants it any more."""
        message, _ = sync.receive(stand_in.inner)
        self._programs.loop.forget(stand_in.inner.fileno())
        if message is None or self._over:
            stand_in.inner.close()
            return
        self._starting = True
        started = functools.partial(self._started, stand_in)
        try:
            self._run_silent("start", ("start",), started)
        except MinirtError as error:
            started(error)

    def _started(self, stand_in: StandIn, error: MinirtError | None) -> None:
        """Say that it runs, by the end of the pair, or why it does not; then what was held back."""
        self._starting = False
        if error:
            stand_in.fail(error)
            if self._exit is None:
                process.pidfd_send_signal(stand_in.launched.pidfd, SIGKILL)
        else:
            stand_in.inner.close()
        if self._exit is not None:
            self._ended(self._exit)

    def kill(self) -> None:
        """Kill the command under way that is to create or to start it: it may hang."""
        if self._command:
            process.pidfd_send_signal(self._command.pidfd, SIGKILL)

    def holds(self, code: int) -> bool:
        """Keep init's exit for later if ``start`` has not ended yet; say whether that is so."""
        if self._starting:
            self._exit = code
        else:
            self._over = True
        return self._starting

    def forget(self) -> str:
        """Have the runtime forget the container, which has ended; return a warning if it cannot.

        Nothing depends on it: its processes are dead, its cgroup is gone, and its state goes with our directory.
        """
        if not os.path.isdir(self._runtime.path("state")):
            return ""
        try:
            self._run_silent("delete", ("delete", "--force"), self._forgotten)
        except MinirtError as error:
            return f"{self._runtime.name} has not deleted the container: {error}"
        return ""

    def _forgotten(self, error: MinirtError | None) -> None:
        if error:
            print(f"minirt: {error}", file=sys.stderr, flush=True)

    def execute(self, session: str, spec: Process, stdio: Stdio, ended: Ended) -> Launched:
        """Have the runtime execute a process in the container; ``ended`` is called if nothing else tells its end.

        Raises:
            StepFailed: the kernel refused a step.
        """
        name = f"exec-{session}"
        stand_in = StandIn(self._programs, self._runtime, name, terminal=spec.terminal)
        _write(self._runtime.path(f"{name}.json"), spec)
        words = ("exec", "--process", f"{name}.json", *stand_in.options(), "--detach")

        def done(error: MinirtError | None) -> None:
            for kind in ("json", "log"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._runtime.path(f"{name}.{kind}"))
            known = stand_in.arrived(error)
            stand_in.inner.close()
            if known is not None:
                ended(known)

        with stand_in.begun() as launched:
            self._run("exec", words, stdio, done, log=f"{name}.log", executed=spec.args[0])
        return launched

    def _run(
        self,
        command: str,
        words: tuple[str, ...],
        stdio: Stdio,
        done: Failed,
        *,
        log: str = "",
        executed: str = "",
        steps: Sequence[Operation[Init]] = (),
    ) -> None:
        """Run a command; ``done`` is told why it failed, or None.

        Raises:
            NotFound: the runtime is not installed any more.
            StepFailed: the kernel refused a step.
        """
        if not os.access(self._runtime.program, os.X_OK):
            why = "the program that runs this pod's containers is gone"
            raise NotFound(f"run {self._runtime.program}", why, "install it again, or make the pod anew")
        log = log or f"{command}.log"
        steps = steps or foreign.without_root(self._tree)
        execution = foreign.execution(self._runtime, self._runtime.arguments(log, *words))

        def ended(code: int, error: MinirtError | None) -> None:
            self._command = None if self._command is launched else self._command
            if code and not error:
                error = self._runtime.error(command, log, code, executed or self._spec.process.args[0])
            done(error)

        launched = self._programs.run([*steps, *execution], stdio, f"{self._runtime.name} {command}", ended)
        self._command = launched if command in BIRTH else self._command

    def _run_silent(self, command: str, words: tuple[str, ...], done: Failed) -> None:
        with fds.closing(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) as null:
            self._run(command, words, (null, null, null), done)


def _say(to: Socket, message: dict[str, Any], fd: int = -1) -> None:
    with contextlib.suppress(OSError):  # who listened has given up
        sync.send(to, message, fd)


def _write(path: str, document: Spec | Process) -> None:
    with open(path, "wb") as file:
        file.write(foreign.encoded(document))


class Terminal:
    """The socket to which a runtime sends the master of the terminal it makes, before its command ends."""

    def __init__(self, runtime: Runtime, name: str) -> None:
        """Listen in the runtime's directory, where its commands are run: so the address is short."""
        self.name = f"{name}.sock"
        self._path = runtime.path(self.name)
        self._listener = sockets.stream()
        with fds.closing(os.open(runtime.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
            self._listener.bind(f"/proc/self/fd/{directory}/{self.name}")
        self._listener.listen(1)
        self._listener.setblocking(False)

    def hand_on(self, inner: Socket) -> None:
        """Take the master, and send it on. Raises ShimError: the runtime has sent none."""
        try:
            with sockets.accept(self._listener.fileno()) as sender:
                _, received = sockets.receive(sender)
        except OSError as error:
            raise ShimError("open a terminal", f"the runtime has sent none: {error.strerror}") from error
        if not received:
            raise ShimError("open a terminal", "the runtime has sent none")
        _say(inner, {"type": "terminal"}, received[0])
        for fd in received:
            os.close(fd)

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
