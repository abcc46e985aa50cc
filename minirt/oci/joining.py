"""One more process in a running container: what joins it, and what becomes the program.

    shim ─ setns(init's PID namespace), for its next child ─ clone3 into init's cgroup ─▶ setns(the others) … execve
      or ─ fork ─▶ stage ─ setns(all but cgroup, user) ─ clone3(CLONE_PARENT) ──────────▶ setns(cgroup, user) … execve

Without a stage the process needs no Python, as a rule: see direct.py. A stage is needed where clocks or ids are not
the host's, or other CPUs are asked for until the process is in its cgroup. The cgroup namespace is joined by the
process itself: seen from inside of it, where ``nsdelegate`` is on, its maker's cgroup does not exist, and clone3 would
refuse to leave it (ENOENT). With it goes the user namespace: until then the process has the host's rights, which
joining the others may take; nobody inside can look into it, for it is not dumpable, and was not when it was born.
"""

import os

from msgspec import Struct

from minirt.cgroups import lifecycle
from minirt.errors import Conflict
from minirt.linux import process
from minirt.linux.calls import Call, call
from minirt.linux.operation import Operation
from minirt.namespaces.kinds import FLAGS
from minirt.oci import executor
from minirt.oci.compile import compile_affinity, compile_birth, compile_labels, compile_oom_score
from minirt.oci.execution import SetPersonality
from minirt.oci.executor import Launched
from minirt.oci.init import Init, Undumpable
from minirt.oci.plan import Plan
from minirt.oci.spec import Process
from minirt.oci.userns import BecomeRoot, raised_limits


class JoinProcess(Operation[object], frozen=True):
    """Join namespaces that a process is in. A PID namespace takes effect for the next child."""

    pidfd: int
    flags: int

    def describe(self) -> str:
        """Return the operation in words."""
        return "setns into the namespaces of the container's init"

    def execute(self, context: object) -> None:
        """Join them all at once."""
        process.setns(self.pidfd, self.flags)

    def calls(self, context: object) -> list[Call]:
        """Return the one call."""
        return [call("setns", self.pidfd, self.flags)]


class Host(Struct, frozen=True):
    """The container to be joined: its init's pid, its cgroup ("" for none), what its processes have in common;
    how many of the caller's descriptors the new one keeps."""

    init_pid: int
    cgroup: str
    has_clocks: bool = False
    personality: tuple[Operation[Init], ...] = ()
    preserved: int = 0
    has_user: bool = False

    def kinds(self) -> int:
        """Return the flags of what the stage joins: a kernel without time namespaces refuses to be asked for one."""
        later = {"cgroup", "user"} if self.has_clocks else {"cgroup", "user", "time"}
        return sum(flag for kind, flag in FLAGS.items() if kind not in later)


Steps = tuple[Operation[Init], ...]

WITHOUT_STAGE = sum(FLAGS[kind] for kind in ("mount", "uts", "ipc", "network", "cgroup"))
"""What the process joins itself where its maker was in the PID namespace already, for a moment."""


def personality_of(plan: Plan) -> tuple[Operation[Init], ...]:
    """Return the step of a plan that every process of the container takes."""
    return tuple(one for one in plan.inside if isinstance(one, SetPersonality))


def _entrance(cgroup: str, init_pid: int) -> int:
    """Return a descriptor of the cgroup to clone into. Raises Conflict: it is frozen, and clone3 would hang in it."""
    entrance = lifecycle.entrance(cgroup, init_pid)
    if lifecycle.is_frozen(entrance):
        raise Conflict(f"execute a process in {entrance}", "the cgroup is frozen: it is paused", "resume it first")
    return lifecycle.open_fd(entrance)


def launch(host: Host, spec: Process, inside: tuple[Operation[Init], ...], stdio: tuple[int, int, int]) -> Launched:
    """Clone a process into a container; it does ``inside`` there.

    Raises:
        Conflict: its cgroup is frozen.
        StepFailed: the kernel refused a step.
        OSError: init has ended.
    """
    cgroup = host.cgroup
    cgroup_fd = _entrance(cgroup, host.init_pid) if cgroup else -1
    pidfd = process.pidfd_open(host.init_pid)
    first, final = compile_affinity(spec.exec_cpu_affinity)
    to_be_confined: Steps = (*compile_oom_score(spec), *compile_labels(spec))
    becoming: Steps = (*final, *host.personality, *compile_birth(host.preserved), *inside)
    try:
        if not (first or host.has_user or host.has_clocks):
            steps: Steps = (*to_be_confined, JoinProcess(pidfd, WITHOUT_STAGE), *becoming)
            return executor.spawn((), 0, steps, stdio, cgroup_fd, "clone3 into the container", neighbour=pidfd)
        limits = [raised_limits(inside)] if host.has_user else []
        stage: Steps = (Undumpable(), *to_be_confined, *first, *limits, JoinProcess(pidfd, host.kinds()))
        own = JoinProcess(pidfd, FLAGS["cgroup"] | (FLAGS["user"] if host.has_user else 0))
        steps = (own, *([BecomeRoot()] if host.has_user else []), *becoming)
        return executor.spawn(stage, 0, steps, stdio, cgroup_fd, "clone3 into the container")
    finally:
        os.close(pidfd)
        if cgroup_fd >= 0:
            os.close(cgroup_fd)
