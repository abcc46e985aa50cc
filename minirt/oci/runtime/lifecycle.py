"""The operations of the specification: create, start; kill and delete are in ending.py; and run, which is all of them.

    create   state file ─ cgroup ─ clone3 ─ init: mounts … ─ hooks ─ … at its gate ─ pid file
    start    gate ─ execve ─ poststart          kill     a signal to init, or to all
    delete   kill (created, --force) ─ cgroup ─ poststop ─ state file

Between the calls nobody watches: init is the child of whoever the caller made its subreaper. Each call holds the
container's lock; what a crash leaves, delete removes.
Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/runtime.md, "Operations"
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from msgspec import structs

from minirt.cgroups import tree
from minirt.errors import Conflict, InvalidInput, ShimError, StepFailed
from minirt.linux import process, sockets
from minirt.oci import executor, hooks, sync
from minirt.oci import spec as specs
from minirt.oci.compile import compile_spec
from minirt.oci.executor import Launched
from minirt.oci.plan import Plan
from minirt.oci.runtime import console, ending, gate, state
from minirt.oci.runtime.options import INIT, Options, send_pidfd
from minirt.oci.runtime.state import Place, State
from minirt.oci.spec import Spec
from minirt.security import seccomp
from minirt.security.capabilities import last_cap
from minirt.security.profile import Seccomp

if TYPE_CHECKING:
    from minirt.cgroups.systemd import Scope
    from minirt.oci.runtime.listener import Listener


def create(place: Place, bundle: str, options: Options) -> list[str]:
    """Make a container whose init waits for start; return warnings. A failed create leaves nothing.

    Raises:
        Conflict: the id is taken.
        InvalidInput: the bundle's config.json, or its terminal, makes no sense.
        StepFailed: the kernel refused a step, or a hook failed.
    """
    spec, plan, made, scope = _prepare(place, bundle, options)
    with _taken_down_unless_done(place), sockets.seqpacket() as listener:
        with _directory(place) as at:
            listener.bind(f"{at}/gate.sock")
        listener.listen(1)
        plan = gate.with_gate(plan, listener.fileno(), spec.hooks, options.preserve_fds)
        with _launched(place, made, plan, scope) as (launched, made):
            return _until_ready(launched, made, spec, plan, options)


def _prepare(place: Place, bundle: str, options: Options) -> tuple[Spec, Plan, State, "Scope | None"]:
    """Read the bundle, decide all that will be done, and take the id."""
    bundle = os.path.abspath(bundle)
    spec = specs.load(f"{bundle}/config.json")
    if spec.hostname and "uts" not in {space.type for space in spec.linux.namespaces}:
        why = "linux.namespaces has none of type uts: it would be the host's name"
        raise InvalidInput("use the spec's hostname", why, "add one, or leave the hostname out")
    console.check(spec.process.terminal, options.console_socket, detach=options.detach)
    scope = _scope(spec, place.id, options)
    path = scope.path if scope else "" if options.manager == "disabled" else cgroup_path(spec, place.id)
    spec = structs.replace(spec, linux=structs.replace(spec.linux, cgroups_path=path))
    plan = compile_spec(spec, bundle, None, tree.find(), last_cap(), seccomp.filter_of(spec.linux.seccomp))
    plan = options.applied(plan)
    made = State(
        id=place.id,
        bundle=bundle,
        rootfs=os.path.normpath(os.path.join(bundle, spec.root.path)),
        created=_now(),
        cgroup=plan.cgroup,
        annotations=spec.annotations,
        has_poststop=bool(spec.hooks.poststop),
        scope=scope.unit if scope else "",
    )
    place.make(made)
    return spec, plan, made, scope


@contextlib.contextmanager
def _taken_down_unless_done(place: Place) -> Iterator[None]:
    """Hold the container's lock; at an error take down what has been made of it."""
    with place.locked():
        try:
            yield
        except BaseException as error:
            ending.take_down(place, place.load(), owns_cgroup=not isinstance(error, Conflict))
            raise


@contextlib.contextmanager
def _launched(place: Place, made: State, plan: Plan, scope: "Scope | None") -> Iterator[tuple[Launched, State]]:
    """Start init, and write down which process it is; hang up at the end of the block."""
    with _anchored(plan, scope) as anchored:
        launched = executor.launch(anchored, (0, 1, 2))
    with contextlib.ExitStack() as stack:
        stack.callback(launched.sync.close)
        stack.callback(os.close, launched.pidfd)
        made = made._replace(pid=launched.pid, start_time=process.start_time(launched.pid))
        place.save(made)
        yield launched, made


def _scope(spec: Spec, container_id: str, options: Options) -> "Scope | None":
    """Return the scope that systemd is to make; None where it is not asked. Raises StepFailed: it does not run."""
    if options.manager != "systemd":
        return None
    from minirt.cgroups import systemd

    systemd.require()
    return systemd.scope_of(spec.linux.cgroups_path, container_id)


@contextlib.contextmanager
def _anchored(plan: Plan, scope: "Scope | None") -> Iterator[Plan]:
    """Yield the plan; where systemd makes the cgroup, with a process to begin it with."""
    if scope is None:
        yield plan
        return
    from minirt.cgroups import systemd

    with systemd.anchor() as pid:
        yield structs.replace(plan, shim=systemd.in_scope(plan.shim, scope, pid))


def _now() -> str:
    """Return the time as RFC 3339 has it, to the microsecond."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds // 1000:06d}Z"


def cgroup_path(spec: Spec, container_id: str) -> str:
    """Return the cgroup that a spec asks for; without one it is named after the container, as in runc and crun.

    systemd's form ``slice:prefix:name`` names the directory that systemd would make.
    """
    path = spec.linux.cgroups_path or f"/{container_id}"
    if path.count(":") == 2:
        from minirt.cgroups import systemd

        return systemd.scope_of(path, container_id).path
    return path if path.startswith("/") else f"/{path}"


@contextlib.contextmanager
def _directory(place: Place) -> Iterator[str]:
    """Yield a short name of the container's directory: a socket's address has room for 107 bytes."""
    fd = os.open(place.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _until_ready(launched: Launched, made: State, spec: Spec, plan: Plan, options: Options) -> list[str]:
    """Hear init out until it stands at its gate; return warnings. Raises MinirtError: it does not get there."""
    warnings = [*plan.warnings, *launched.warnings]
    while True:
        message, received = sync.receive(launched.sync)
        if message is None:
            why = "its init ended before it was ready"
            raise ShimError(f"create {made.id}", why, "is its memory limit large enough?")
        match message["type"]:
            case "warning":
                warnings.append(message["text"])
            case "terminal":
                take_terminal(received[0], options.console_socket, options.terminals)
            case "hooks":
                text = _document(made, "creating")
                hooks.run("prestart", spec.hooks.prestart, text)
                hooks.run("createRuntime", spec.hooks.create_runtime, text)
                sync.send(launched.sync, {"type": "go", "state": text})
            case "failed":
                raise sync.failure(message, spec.process.args[0])
            case "ready":
                break
    if options.pidfd_socket:
        send_pidfd(options.pidfd_socket, launched.pidfd, INIT)
    if options.pid_file:
        write_pid(options.pid_file, made.pid)
    return warnings


def take_terminal(master: int, console_socket: str, terminals: list[int]) -> None:
    """Hand a terminal over to the one who listens for it, or keep it for ourselves."""
    if console_socket:
        console.hand_over(console_socket, master)
    else:
        terminals.append(master)


def _document(made: State, status: str) -> str:
    return state.encoded(state.document(made, status))


def write_pid(path: str, pid: int) -> None:
    """Write a pid file whole: its reader may poll for it."""
    new = f"{path}.{os.getpid()}"
    try:
        with open(new, "w") as file:
            file.write(str(pid))
        os.rename(new, path)
    except OSError as error:
        raise StepFailed.from_os_error(f"write the pid file {path}", error) from error


def start(place: Place) -> list[str]:
    """Let a created container's program run; return warnings (a poststart hook that failed is one).

    Raises:
        Conflict: it is not created (any more).
        MinirtError: the program cannot be executed, or a startContainer hook failed.
    """
    with place.locked():
        made = place.load()
        status = place.status(made)
        if status != "created":
            raise Conflict(f"start {place.id}", f"cannot start a container that is {status}", "create it first")
        spec = specs.load(f"{made.bundle}/config.json")
        with _heard(spec, made) as on_listener:
            gate.call(place.gate, _document(made, "created"), spec.process.args[0], on_listener)
        failures = hooks.run_all("poststart", spec.hooks.poststart, _document(made, "running"))
    return [str(failure) for failure in failures]


@contextlib.contextmanager
def _heard(spec: Spec, made: State) -> Iterator[Callable[[int], None]]:
    """Yield what passes the descriptor of a filter that asks somebody on to who listens."""
    with listener_of(spec.linux.seccomp) as listener:
        yield lambda fd: hand_over(listener, fd, made.pid, state.document(made, "created"))


def listener_of(profile: Seccomp | None) -> "contextlib.AbstractContextManager[Listener | None]":
    """Connect to who decides for a seccomp filter; None for one that asks nobody. Raises StepFailed: nobody listens."""
    if not (profile and profile.notifies):
        return contextlib.nullcontext()
    from minirt.oci.runtime.listener import Listener

    return Listener(profile)


def hand_over(listener: "Listener | None", fd: int, pid: int, document: dict[str, Any]) -> None:
    """Pass a filter's descriptor on to who listens. Raises StepFailed: that one is gone, and the process killed."""
    assert listener, "only a filter that asks has a descriptor"
    listener.hand_over(fd, pid, document)


def run(place: Place, bundle: str, options: Options, warn: Callable[[list[str]], None], *, keep: bool = False) -> int:
    """Create and start a container; unless detached, pass signals on, wait for its end and delete it.

    Nobody else is to start it, so its gate is the pair that it was made with. ``warn`` gets warnings before its program
    runs. Return its exit code: 128 and the signal's number if by one, as a shell has it.
    """
    spec, plan, made, scope = _prepare(place, bundle, options)
    plan = gate.with_gate(plan, gate.OWN_PAIR, spec.hooks, options.preserve_fds)
    with _taken_down_unless_done(place), _launched(place, made, plan, scope) as (launched, made):
        warn(_until_ready(launched, made, spec, plan, options))
        if not options.detach:
            pass_signals_on(made.pid)
        with _heard(spec, made) as on_listener:
            gate.open_own(launched.sync, _document(made, "created"), spec.process.args[0], on_listener)
        failures = hooks.run_all("poststart", spec.hooks.poststart, _document(made, "running"))
    warn([str(failure) for failure in failures])
    if options.detach:
        return 0
    for master in options.terminals:
        console.relay(master, made.pid)
    code = wait(made.pid)
    if not keep:
        ending.delete(place, force=True)
    return code


def pass_signals_on(pid: int) -> None:
    """Have a child get what signals we get, from before its program runs: a caller may be quick."""
    passed = set(signal.valid_signals()) - {signal.SIGCHLD, signal.SIGURG, signal.SIGKILL, signal.SIGSTOP}
    for number in passed:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, lambda number, _: _pass_on(pid, number))


def wait(pid: int) -> int:
    """Wait for a child; return its exit code, 128 and the number for a signal."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if status >= 0 else 128 - status


def _pass_on(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
