"""The shim: one process a sandbox, that holds what must outlive the minirt that made it.

It is the subreaper of its containers, owns their output and their exit codes, and answers on ``shim.sock``
(protocol.py). It has one thread, and forks.
"""

import _signal  # type: ignore[import-not-found]  # the same without enumerations, which cost 200 kB at first use
import functools
import os
import signal
import socket
import sys
from typing import Any

from minirt import journal, paths
from minirt.cgroups import tree
from minirt.errors import Conflict, InvalidInput, MinirtError, NotFound, ShimError, StepFailed
from minirt.linux import fds, prctl, sockets
from minirt.namespaces.rootfs import MountOverlay
from minirt.oci import foreign
from minirt.oci import spec as specs
from minirt.oci.compile import compile_spec
from minirt.oci.foreign import Runtime
from minirt.oci.spec import Spec
from minirt.pod import sandbox
from minirt.security import seccomp
from minirt.shim import protocol
from minirt.shim.client import short_address
from minirt.shim.container import Container, Reply, exit_of
from minirt.shim.foreign import Foreign, Programs
from minirt.shim.hooking import with_hooks
from minirt.shim.loop import Loop
from minirt.shim.protocol import Answer
from minirt.shim.rest import Rest
from minirt.shim.session import Session


class Connection:
    """One client, and what it has been promised."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.subscribed = False

    def send(self, answer: Answer, descriptors: list[int] | None = None) -> None:
        """Send an answer; a client that has gone is found out by its end of file."""
        try:
            sockets.send(self.peer, protocol.encode(answer), descriptors)
        except OSError:
            return

    def replier(self, request_id: int) -> Reply:
        """Return the callback that answers one request."""

        def reply(outcome: dict[str, Any] | MinirtError, descriptors: list[int]) -> None:
            if isinstance(outcome, MinirtError):
                self.send(Answer(id=request_id, error=outcome.to_wire()))
            else:
                self.send(Answer(id=request_id, ok=outcome), descriptors)

        return reply


class Shim:
    """The server. Handlers are named for their request: ``_make_sandbox`` takes MakeSandbox."""

    def __init__(self, sandbox_id: str, listener: socket.socket, last_cap: int) -> None:
        self.sandbox_id = sandbox_id
        self._listener = listener
        self._last_cap = last_cap
        self._tree = tree.find()
        self._loop = Loop(self._child_ended)
        self._programs = Programs(self._loop)
        self._connections: set[Connection] = set()
        self._containers: dict[str, Container] = {}
        self._sessions: dict[str, Session] = {}
        self._caretakers: set[Connection] = set()
        self._cleanup = False
        self._pause = 0
        self._rest = Rest(self._loop)
        listener.setblocking(False)
        self._loop.watch(listener.fileno(), self._accept)

    def run(self) -> None:
        """Serve until Shutdown, or until pause ends: what follows an exit that nobody asked for is the pod worker's."""
        self._loop.run()

    def close(self) -> None:
        """Hang up, and let go of signals: for one that is over while its process goes on."""
        for connection in self._connections:
            connection.peer.close()
        self._loop.close()

    # --- clients

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except BlockingIOError:
            return
        connection = Connection(peer)
        self._connections.add(connection)
        self._loop.watch(peer.fileno(), functools.partial(self._receive, connection))

    def _receive(self, connection: Connection) -> None:
        try:
            data, received = sockets.receive(connection.peer)
        except ConnectionResetError:
            data, received = b"", []
        if not data:
            self._disconnect(connection)
            return
        try:
            envelope = protocol.decode_request(data)
        except ValueError as error:
            refusal = ShimError("read a request", str(error), "the client is of another version than this shim")
            connection.send(Answer(error=refusal.to_wire()))
            return
        self._handle(connection, envelope, received)

    def _handle(self, connection: Connection, envelope: protocol.Envelope, received: list[int]) -> None:
        self._rest.disturbed()
        reply = connection.replier(envelope.id)
        handler = getattr(self, "_on_" + type(envelope.request).__name__.lower())
        try:
            handler(connection, envelope.request, reply, received)
        except MinirtError as error:
            reply(error, [])
        except OSError as error:
            reply(StepFailed.from_os_error(type(envelope.request).__name__, error, stage="shim"), [])
        finally:
            for fd in received:
                os.close(fd)

    def _disconnect(self, connection: Connection) -> None:
        self._loop.forget(connection.peer.fileno())
        connection.peer.close()
        self._connections.discard(connection)
        if connection in self._caretakers:
            self._caretakers.discard(connection)
            self._clean_up_if_ended()

    # --- the sandbox

    def _on_makesandbox(
        self, connection: Connection, request: protocol.MakeSandbox, reply: Reply, _: list[int]
    ) -> None:
        self._cleanup = request.cleanup
        plan = sandbox.Plan(
            directory=paths.sandbox_path(self.sandbox_id),
            kinds=request.kinds,
            hostname=request.hostname,
            cgroup=request.cgroup,
            share_pid=request.share_pid,
            shm_bytes=request.shm_bytes,
            last_cap=self._last_cap,
            sysctls=request.sysctls,
            resources=request.resources,
            uid_map=request.uid_map,
            gid_map=request.gid_map,
        )
        made = sandbox.make(plan, netlink=request.netlink)
        self._pause = made.pause
        reply({}, [made.netlink] if made.netlink >= 0 else [])
        if made.netlink >= 0:
            os.close(made.netlink)

    def _on_shutdown(self, connection: Connection, request: protocol.Shutdown, reply: Reply, _: list[int]) -> None:
        running = [container.id for container in self._containers.values() if not container.ended]
        if running:
            raise Conflict("end the shim", f"containers still run: {', '.join(running)}", "stop them first")
        self._cleanup = False
        self._programs.when_idle(functools.partial(self._end, reply))

    def _end(self, reply: Reply) -> None:
        reply({}, [])
        self._loop.stop()

    def _on_list(self, connection: Connection, request: protocol.List, reply: Reply, _: list[int]) -> None:
        states = {container.id: container.status.state for container in self._containers.values()}
        reply({"version": protocol.VERSION, "pid": os.getpid(), "containers": states}, [])

    def _on_subscribe(self, connection: Connection, request: protocol.Subscribe, reply: Reply, _: list[int]) -> None:
        connection.subscribed = True
        reply({}, [])

    # --- containers

    def _find(self, container_id: str) -> Container:
        try:
            return self._containers[container_id]
        except KeyError:
            raise NotFound(f"find container {container_id}", f"sandbox {self.sandbox_id} has none of this id") from None

    def _on_create(self, connection: Connection, request: protocol.Create, reply: Reply, _: list[int]) -> None:
        if request.container in self._containers:
            raise Conflict(f"create {request.container}", "it exists already")
        spec = specs.load(f"{request.bundle}/config.json")
        overlay = None
        if request.overlay:
            layers = request.overlay
            target = os.path.join(request.bundle, spec.root.path)
            overlay = MountOverlay(layers.lowers, layers.upper, layers.work, target, layers.mapped)
        if request.runtime and overlay:
            container = self._foreign(request, spec, overlay)
        else:
            filter = seccomp.filter_of(spec.linux.seccomp)
            plan = compile_spec(spec, request.bundle, overlay, self._tree, self._last_cap, filter)
            plan = with_hooks(plan, spec, request.container, request.bundle)
            container = Container(self._loop, request.container, plan, self._changed)
        self._containers[request.container] = container
        with journal.because(request.cause):
            container.create(
                stdin=request.stdin,
                terminal=spec.process.terminal,
                log_path=request.log_path,
                start=request.start,
                reply=reply,
            )

    def _foreign(self, request: protocol.Create, spec: Spec, overlay: MountOverlay) -> Container:
        """Return a container that another OCI runtime is to run."""
        runtime = Runtime(request.runtime, request.container, os.path.join(request.bundle, "runtime"))
        plan = foreign.plan_of(spec, self._tree)
        container = Container(self._loop, request.container, plan, self._changed)
        container.foreign = Foreign(self._programs, runtime, spec, overlay, self._tree, container.exited)
        return container

    def _on_start(self, connection: Connection, request: protocol.Start, reply: Reply, _: list[int]) -> None:
        self._find(request.container).start(reply)

    def _on_attach(self, connection: Connection, request: protocol.Attach, reply: Reply, received: list[int]) -> None:
        container = self._find(request.container)
        for (_, output), fd in zip(sorted(container.outputs.items(), reverse=True), received, strict=False):
            output.attach(os.dup(fd))
        entry = container.master if container.master >= 0 else container.stdin
        reply({"terminal": container.master >= 0}, [entry] if entry >= 0 else [])
        if request.once and container.stdin >= 0:
            os.close(container.stdin)
            container.stdin = -1

    def _on_kill(self, connection: Connection, request: protocol.Kill, reply: Reply, _: list[int]) -> None:
        target = self._find_session(request.session) if request.session else self._find(request.container)
        target.signal(request.signal)
        reply({}, [])

    def _on_stop(self, connection: Connection, request: protocol.Stop, reply: Reply, _: list[int]) -> None:
        container = self._find(request.container)
        if container.ended:
            reply(exit_of(container.status), [])
            return
        container.waiters.append(reply)
        container.stop(request.signal, request.grace_s)

    def _on_wait(self, connection: Connection, request: protocol.Wait, reply: Reply, _: list[int]) -> None:
        if request.session:
            self._wait_for_session(self._find_session(request.session), reply)
            return
        container = self._find(request.container)
        if request.caretaker:
            self._caretakers.add(connection)
        reply(exit_of(container.status), []) if container.ended else container.waiters.append(reply)

    def _wait_for_session(self, session: Session, reply: Reply) -> None:
        """Answer when it ends, and forget it then: its exit is told once."""
        if session.exit:
            del self._sessions[session.id]
            reply(session.exit, [])
        else:
            session.waiters.append(reply)

    def _on_delete(self, connection: Connection, request: protocol.Delete, reply: Reply, _: list[int]) -> None:
        container = self._containers.get(request.container)
        if container and not container.ended:
            raise Conflict(f"delete {container.id}", f"it is {container.status.state}", "stop it first, or use --force")
        self._containers.pop(request.container, None)
        self._sessions = {key: one for key, one in self._sessions.items() if one.container.id != request.container}
        self._programs.when_idle(functools.partial(reply, {}, []))

    def _on_reopenlog(self, connection: Connection, request: protocol.ReopenLog, reply: Reply, _: list[int]) -> None:
        container = self._find(request.container)
        if not container.log:
            raise Conflict(f"reopen the log of {container.id}", f"it is {container.status.state}")
        container.log.reopen()
        reply({}, [])

    def _on_exec(self, connection: Connection, request: protocol.Exec, reply: Reply, received: list[int]) -> None:
        container = self._find(request.container)
        if request.process.terminal:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            received.append(null)
            stdio = (null, null, null)
        elif len(received) == 3:
            stdio = (received[0], received[1], received[2])
        else:
            raise InvalidInput("exec", f"it takes 3 descriptors and got {len(received)}")
        session = Session(self._loop, request.session, container, request.process, self._last_cap, self._session_ended)
        session.start(stdio, reply, apart=request.apart)
        self._sessions[request.session] = session

    def _find_session(self, session_id: str) -> Session:
        try:
            return self._sessions[session_id]
        except KeyError:
            raise NotFound(f"find exec session {session_id}", "there is none of this id") from None

    # --- what happens

    def _child_ended(self, pid: int, code: int) -> None:
        """Find whose process it was; one that has ended before had this pid long ago, and orphans are nobody's."""
        if self._programs.ended(pid, code):
            return
        for container in self._containers.values():
            if container.pid == pid and not container.ended:
                container.exited(code)
                return
        for session in self._sessions.values():
            if session.pid == pid and not session.exit:
                self._session_ended(session, code)
                return
        if pid == self._pause:
            self._end_with_pause()
        self._programs.note(pid, code)

    def _end_with_pause(self) -> None:
        """End: the kernel has killed all that was in its PID namespace, and nothing can enter it."""
        for container in self._containers.values():
            if container.foreign:
                container.foreign.kill()
        self._programs.when_idle(self._loop.stop)

    def _session_ended(self, session: Session, code: int) -> None:
        """Forget a session whose exit has been told."""
        if session.exited(code):
            self._sessions.pop(session.id, None)

    def _changed(self, container: Container) -> None:
        event = Answer(event={"container": container.id, "state": container.status.state})
        for connection in self._connections:
            if connection.subscribed:
                connection.send(event)
        if container.ended:
            self._clean_up_if_ended()

    def _clean_up_if_ended(self) -> None:
        """Where nobody takes care of what must follow the exit, have it done: by a program of its own."""
        everything_ended = self._containers and all(one.ended for one in self._containers.values())
        if self._cleanup and everything_ended and not self._caretakers:
            self._cleanup = False
            command = [sys.executable, "-m", "minirt", "system", "cleanup", self.sandbox_id]
            journal.step("spawn", os.posix_spawn, sys.executable, command, dict(os.environ))


def listen(sandbox_id: str) -> socket.socket:
    """Return the listening socket of a sandbox's shim. Raises OSError: the sandbox's directory is gone."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with short_address(sandbox_id) as address:
        listener.bind(address)
    listener.listen(64)
    return listener


def _open_log(sandbox_id: str, null: int) -> int:
    """Return where the shim says what nobody asked for; a full disk costs the log, not the shim."""
    try:
        return os.open(f"{paths.sandbox_path(sandbox_id)}/shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        return null


def serve(sandbox_id: str, listener: socket.socket, last_cap: int, trace: str) -> None:
    """Be a shim until Shutdown: the entry point of the zygote's child. ``trace`` is the journal's file."""
    journal.stage = "shim"
    journal.sink = None
    _signal.signal(signal.SIGPIPE, _signal.SIG_IGN)
    _signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whoever started us may have blocked SIGCHLD, which the loop needs
    null = os.open("/dev/null", os.O_RDWR)
    out = _open_log(sandbox_id, null)
    for number, fd in enumerate((null, out, out)):
        os.dup2(fd, number)
    fds.close_all_but({0, 1, 2, listener.fileno()})
    os.chdir("/")
    if trace:
        journal.open_file(trace)
    journal.step("setsid", os.setsid)
    journal.step("umask", os.umask, 0o022)
    prctl.set_child_subreaper()
    prctl.set_name("minirt-shim")
    prctl.set_title(f"minirt-shim {sandbox_id}")
    Shim(sandbox_id, listener, last_cap).run()
