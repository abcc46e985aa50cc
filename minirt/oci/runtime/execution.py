"""``exec``: one more process in a running container, described by a file (``--process``) or by words and flags."""

import contextlib
import os
from collections.abc import Callable
from functools import partial

from msgspec import structs

from minirt.cgroups import tree
from minirt.errors import Conflict, InvalidInput, ShimError
from minirt.linux.operation import Operation
from minirt.oci import joining, sync
from minirt.oci import spec as specs
from minirt.oci.compile import compile_personality, compile_process
from minirt.oci.executor import Launched
from minirt.oci.init import Execute, Init
from minirt.oci.runtime import console, lifecycle, state
from minirt.oci.runtime.arguments import Arguments
from minirt.oci.runtime.options import EXECUTED, send_pidfd
from minirt.oci.runtime.state import Place, State
from minirt.oci.spec import Process
from minirt.security import seccomp
from minirt.security.capabilities import last_cap


def execute(place: Place, chosen: Arguments) -> int:
    """Execute a process in a container; return its exit code, 0 at once when detached.

    Raises:
        Conflict: the container does not run, or is paused.
        MinirtError: the process cannot be started.
    """
    flags = chosen.flags
    made = place.load()
    status = place.status(made)
    if status not in {"running", "created"} and not (status == "paused" and flags["ignore_paused"]):
        raise Conflict(
            f"exec in container {place.id}", f"it is {status}", "only a running container can be exec'd into"
        )
    spec = specs.load(f"{made.bundle}/config.json")
    process = _process(spec.process, chosen)
    console.check(process.terminal, flags["console_socket"], detach=flags["detach"])
    filter = seccomp.filter_of(spec.linux.seccomp)
    steps = compile_process(process, last_cap(), console=False, filter=filter)
    inside = [_preserving(one, flags["preserve_fds"]) for one in steps]
    has_clocks = any(space.type == "time" for space in spec.linux.namespaces)
    host = joining.Host(
        made.pid,
        _cgroup(made, flags["cgroup"]),
        has_clocks,
        tuple(compile_personality(spec.linux)),
        flags["preserve_fds"],
        any(space.type == "user" for space in spec.linux.namespaces),
    )
    terminals: list[int] = []
    with lifecycle.listener_of(spec.linux.seccomp) as listener:
        launched = joining.launch(host, process, tuple(inside), (0, 1, 2))
        if not flags["detach"]:
            lifecycle.pass_signals_on(launched.pid)
        if flags["pidfd_socket"]:
            send_pidfd(flags["pidfd_socket"], launched.pidfd, EXECUTED)
        document = state.document(made, status)
        hand_over = partial(lifecycle.hand_over, listener, pid=launched.pid, document=document)
        _until_executed(launched, process.args[0], flags["console_socket"], terminals, hand_over)
    if flags["pid_file"]:
        lifecycle.write_pid(flags["pid_file"], launched.pid)
    if flags["detach"]:
        return 0
    for master in terminals:
        console.relay(master, launched.pid)
    return lifecycle.wait(launched.pid)


def _cgroup(made: State, below: str) -> str:
    """Return the cgroup that the process is for: the container's, or one that is there below it.

    Raises:
        InvalidInput: it leads elsewhere, or is not there.
    """
    if not below.strip("/"):
        return made.cgroup
    path = f"{made.cgroup}/{tree.checked_path(below.strip('/'))}"
    if not (made.cgroup and os.path.isdir(path)):
        raise InvalidInput(f"exec in the cgroup {below}", f"there is no {path}", "exec uses those that are there")
    return path


def _preserving(one: Operation[Init], count: int) -> Operation[Init]:
    return structs.replace(one, preserved=count) if isinstance(one, Execute) else one


def _process(own: Process, chosen: Arguments) -> Process:
    """Return the process of the file, or the container's own with the words and flags in its place."""
    flags = chosen.flags
    if flags["process"]:
        process = specs.read(flags["process"], Process)
    elif chosen.words[1:]:
        process = structs.replace(own, args=chosen.words[1:], terminal=False, console_size=None)
    else:
        raise InvalidInput("exec", "there is no command", "give one after the id, or --process FILE")
    if flags["tty"]:
        process = structs.replace(process, terminal=True)
    if flags["apparmor"]:
        process = structs.replace(process, apparmor_profile=flags["apparmor"])
    if flags["process_label"]:
        process = structs.replace(process, selinux_label=flags["process_label"])
    return process if flags["process"] else _changed(process, flags)


def _changed(process: Process, flags: dict[str, object]) -> Process:
    env, cwd, user = flags["env"], flags["cwd"], str(flags["user"])
    assert isinstance(env, list)
    return structs.replace(
        process,
        env=(*process.env, *env),
        cwd=str(cwd) or process.cwd,
        user=_user(process.user, user, flags["additional_gids"]),
        no_new_privileges=process.no_new_privileges or bool(flags["no_new_privs"]),
        capabilities=_with_more(process.capabilities, flags["cap"]),
    )


def _user(user: specs.User, words: str, more: object) -> specs.User:
    assert isinstance(more, list)
    try:
        groups = (*user.additional_gids, *(int(gid) for gid in more))
        if not words:
            return structs.replace(user, additional_gids=groups)
        uid, _, gid = words.partition(":")
        return structs.replace(user, uid=int(uid), gid=int(gid or 0), additional_gids=groups)
    except ValueError:
        raise InvalidInput("exec", f"users and groups are numbers here, not {words!r} {more}") from None


def _with_more(sets: specs.Capabilities, names: object) -> specs.Capabilities:
    assert isinstance(names, list)
    more = tuple(names)
    return structs.replace(
        sets, bounding=sets.bounding + more, effective=sets.effective + more, permitted=sets.permitted + more
    )


def _until_executed(
    launched: Launched, command: str, console_socket: str, terminals: list[int], on_listener: Callable[[int], None]
) -> None:
    """Hear the process out until it has executed its program; end it with the error it tells."""
    is_at_gate = False
    with contextlib.closing(launched.sync):
        os.close(launched.pidfd)
        while True:
            message, descriptors = launched.receive()
            if message is None:
                break
            match message["type"]:
                case "terminal":
                    lifecycle.take_terminal(descriptors[0], console_socket, terminals)
                case "listener":
                    on_listener(descriptors[0])
                case "ready":
                    is_at_gate = True
                    launched.open_gate()
                case "failed":
                    _reap(launched.pid)
                    raise sync.failure(message, command)
    if not is_at_gate:
        _reap(launched.pid)
        raise ShimError(f"execute {command!r}", "it was killed before its program began", "try again")


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
