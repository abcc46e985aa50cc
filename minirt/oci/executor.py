"""The executor: a plan becomes a process that stands at its gate.

    shim ─ plan.shim (cgroup) ─ clone3 ───────────────────▶ init ─ plan.inside … ready
       or                     └ fork ▶ stage ─ setns(pid) ─ clone3(CLONE_PARENT) ▶ init

The stage is needed to join a PID namespace or to set clocks, which both take effect in the next child, and around a
user namespace: see userns.py. With CLONE_PARENT init is the shim's own child all the same.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from msgspec import Struct, field

from minirt import journal
from minirt.cgroups import lifecycle
from minirt.errors import MinirtError, ShimError, StepFailed
from minirt.linux import fds, operation, prctl, process
from minirt.linux.operation import Operation
from minirt.linux.sockets import Socket
from minirt.namespaces import idmap
from minirt.oci import sync
from minirt.oci.init import Init
from minirt.oci.plan import Plan
from minirt.security.seccomp import Filter

if TYPE_CHECKING:
    from minirt.oci.direct import Ahead

SECCOMP_SET_MODE_FILTER = 1
IN_REACH = "the container may reach minirt's interpreter as /proc/self/exe: the kernel has no CONFIG_CHECKPOINT_RESTORE"


class Launched(Struct):
    """An init on its way: its host pid, its pidfd, the shim's end of the pair, and what its stage warned of.

    One that runs no Python says what it has done by ``ahead``, when its pair ends; it stands at no gate.
    """

    pid: int
    pidfd: int
    sync: Socket
    warnings: list[str] = field(default_factory=list)
    ahead: "Ahead | None" = None
    said: list[tuple[dict[str, Any] | None, list[int]]] = field(default_factory=list)

    def receive(self) -> tuple[dict[str, Any] | None, list[int]]:
        """Return the next message and its descriptors; None at the end. Raises BlockingIOError: there is none yet."""
        if self.said:
            return self.said.pop(0)
        message, received = sync.receive(self.sync)
        if self.ahead and (message is None or message["type"] == "failed"):
            self.said = [*((told, []) for told in self.ahead.messages()), (message, received)]
            self.ahead = None
            return self.said.pop(0)
        return message, received

    def open_gate(self) -> None:
        """Let it through, as soon as it comes to its gate."""
        if not self.ahead:
            with contextlib.suppress(BrokenPipeError):  # it has died: its exit is on the way, and tells why
                sync.send(self.sync, {"type": "start"})


class _Child(Struct, frozen=True):
    """What a clone is to do and with what: its plan, its stdio, its end of the pair, its name in the journal."""

    plan: tuple[Operation[Init], ...]
    stdio: tuple[int, int, int]
    sync: Socket
    name: str
    blank: int


def launch(plan: Plan, stdio: tuple[int, int, int]) -> Launched:
    """Do the plan's outer part and start init on the inner one; do not wait for it.

    ``stdio`` are the descriptors init makes its 0, 1, 2. The caller must be single-threaded, and must undo the
    cgroup if this raises or init fails.

    Raises:
        Conflict: processes live in a cgroup of this path: it is somebody else's, and not to be undone.
        StepFailed: the kernel refused a step; it names the operation.
    """
    operation.run(list(plan.shim), None)
    cgroup_fd = lifecycle.open_fd(plan.cgroup) if plan.cgroup else -1
    try:
        launched = spawn(plan.stage, plan.clone_flags, plan.inside, stdio, cgroup_fd, plan.describe_clone())
    finally:
        if cgroup_fd >= 0:
            os.close(cgroup_fd)
    if plan.uid_map:
        _map_ids(launched, plan)
    return launched


def _map_ids(launched: Launched, plan: Plan) -> None:
    """Write the maps of init's user namespace, and tell it; if that fails, see init's end."""
    try:
        idmap.write(launched.pid, plan.uid_map, plan.gid_map)
        sync.send(launched.sync, {"type": "mapped"})
    except OSError as error:
        launched.sync.close()
        os.close(launched.pidfd)
        os.waitpid(launched.pid, 0)
        what = "map the ids of the container's user namespace"
        do = "do its linux.uidMappings or linux.gidMappings overlap, or lead to ids that minirt itself does not have?"
        raise StepFailed.from_os_error(what, error, stage=journal.stage, step="write", do=do) from error


def spawn(
    stage: tuple[Operation[Init], ...],
    clone_flags: int,
    inside: tuple[Operation[Init], ...],
    stdio: tuple[int, int, int],
    cgroup_fd: int,
    description: str,
    *,
    name: str = "init",
    neighbour: int = -1,
) -> Launched:
    """Clone a child (through a stage, where ``stage`` has something to join first) that executes ``inside``.

    ``name`` is what the journal calls it. Without a stage ``neighbour`` may be the pidfd of one in whose PID namespace
    the child is born.
    """
    outer, inner = sync.pair()
    warnings: list[str] = []
    ahead = None
    with inner, process.blank_file() as blank:
        child = _Child(inside, stdio, inner, name, blank)
        warnings += [] if blank >= 0 else [IN_REACH]
        try:
            if stage:
                pid, pidfd = _clone_in_stage(stage, clone_flags, child, cgroup_fd, outer, warnings)
            elif neighbour >= 0 and (ahead := _ahead(child)):
                with _next_to(neighbour):
                    pid, pidfd = ahead.launch(clone_flags, cgroup_fd)
            else:
                with _next_to(neighbour):
                    pid, pidfd = process.clone3(clone_flags, cgroup_fd)
                    if pid == 0:
                        _inside(child)
        except OSError as error:
            outer.close()
            raise StepFailed.from_os_error(description, error, stage=journal.stage, step="clone3") from error
        except MinirtError:
            outer.close()
            raise
    return Launched(pid, pidfd, outer, warnings, ahead)


def _ahead(child: _Child) -> "Ahead | None":
    """Return what a child will do, if it needs no Python for it."""
    from minirt.oci import direct

    return direct.ahead(child.plan, Init(child.sync, child.stdio, blank=child.blank), child.name)


@contextlib.contextmanager
def _next_to(neighbour: int) -> Iterator[None]:
    """Have children born in the PID namespace of ``neighbour``, a pidfd (-1: in ours); nobody there may look into them.

    That they are not dumpable from their first moment they have from us: we are not, from then on.
    """
    if neighbour < 0:
        yield
        return
    prctl.set_dumpable(False)
    with fds.closing(os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)) as own:
        process.setns(neighbour, process.CLONE_NEWPID)
        try:
            yield
        finally:
            process.setns(own, process.CLONE_NEWPID)


def note_last_step(filter: Filter | None, command: str, pid: int, error: MinirtError | None = None) -> None:
    """Record what init did in C, out of the journal's sight: it left its executable, loaded its filter, and execve.

    ``error`` is what it reported; without one both have succeeded.
    """
    number, step = getattr(error, "errno", 0), getattr(error, "step", "")
    if process.can_leave_executable():
        arguments = journal.shown((process.PR_SET_MM, process.PR_SET_MM_MAP))
        journal.note("prctl", arguments, number if step == "prctl" else 0, pid=pid, of="init")
    if filter and step != "prctl":
        arguments = journal.shown((SECCOMP_SET_MODE_FILTER, filter.flags, filter.length))
        journal.note("seccomp", arguments, number if step == "seccomp" else 0, pid=pid, of="init")
    if step not in {"prctl", "seccomp"}:
        journal.note("execve", command, number, pid=pid, of="init")


def _clone_in_stage(
    stage: tuple[Operation[Init], ...],
    clone_flags: int,
    child: _Child,
    cgroup_fd: int,
    outer: Socket,
    warnings: list[str],
) -> tuple[int, int]:
    """Fork a stage that joins, clones init as our child, and hands its pidfd back. Return (pid, pidfd)."""
    ours, stages = sync.pair()
    with ours:
        stage_pid = journal.step("fork", os.fork)
        if stage_pid == 0:
            ours.close()
            outer.close()
            _stage(stage, clone_flags, child, cgroup_fd, stages)
        stages.close()
        try:
            message, received = sync.receive(ours)
            while message is not None and message["type"] in {"step", "warning"}:
                if message["type"] == "warning":
                    warnings.append(message["text"])
                elif journal.sink:
                    journal.sink(sync.record_of(message, stage_pid))
                message, received = sync.receive(ours)
        finally:
            os.waitpid(stage_pid, 0)
        if message is None:
            raise ShimError("start a container", "its stage was killed", "try again")
        if message["type"] == "failed":
            raise sync.failure(message, "")
        return message["pid"], received[0]


def _stage(
    stage: tuple[Operation[Init], ...],
    clone_flags: int,
    child: _Child,
    cgroup_fd: int,
    report: Socket,
) -> NoReturn:
    """Be the stage: join, clone with CLONE_PARENT, report, exit."""
    journal.stage = "stage"
    if journal.sink:
        sync.send_steps_to(report)
    try:
        tasks = os.open("/proc/self/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        context = Init(report, child.stdio)
        operation.run(list(stage), context)
        pid, pidfd = process.clone3(clone_flags | process.CLONE_PARENT, cgroup_fd, tasks)
        if pid == 0:
            report.close()
            _inside(child, context.prepared)
        sync.send(report, {"type": "cloned", "pid": pid}, pidfd)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001  a stage must never return into its parent's code
        _report_failure(report, error)
        os._exit(125)


def _inside(child: _Child, prepared: list[int] | None = None) -> NoReturn:
    """Be init: from here on only the plan, and never back."""
    try:
        journal.stage = child.name
        if journal.sink:
            sync.send_steps_to(child.sync)
        operation.run(list(child.plan), Init(child.sync, child.stdio, blank=child.blank, prepared=prepared or []))
    except BaseException as error:  # noqa: BLE001  init must never return into its parent's code
        _report_failure(child.sync, error)
    os._exit(125)


def _report_failure(to: Socket, error: BaseException) -> None:
    if isinstance(error, OSError):
        error = StepFailed.from_os_error("prepare the container", error, stage=journal.stage)
    elif not isinstance(error, MinirtError):
        error = StepFailed("prepare the container", repr(error), "this is a bug in minirt", stage=journal.stage)
    try:
        sync.send(to, {"type": "failed", **error.to_wire()})
    except OSError:
        os._exit(125)
