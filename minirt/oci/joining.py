"""One more process in a running container: what joins it, and what becomes the program.

The stage joins init's namespaces through its pidfd, and clones the process into init's cgroup. The cgroup namespace is
joined by the process itself: seen from inside of it, where ``nsdelegate`` is on, the stage's own cgroup does not exist,
and clone3 would refuse to leave it (ENOENT).
"""

import os

from minirt.cgroups import lifecycle
from minirt.linux import process
from minirt.linux.operation import Operation
from minirt.namespaces.kinds import FLAGS
from minirt.oci import executor
from minirt.oci.compile import compile_birth, compile_oom_score
from minirt.oci.executor import Launched
from minirt.oci.init import Init, Undumpable
from minirt.oci.spec import Process


class JoinProcess(Operation[object], frozen=True):
    """Join the namespaces that a process is in. A PID namespace takes effect for the next child."""

    pidfd: int
    flags: int

    def describe(self) -> str:
        """Return the operation in words."""
        return "setns into the namespaces of the container's init"

    def execute(self, context: object) -> None:
        """Join them all at once."""
        process.setns(self.pidfd, self.flags)


def launch(
    init_pid: int, cgroup: str, spec: Process, inside: tuple[Operation[Init], ...], stdio: tuple[int, int, int]
) -> Launched:
    """Clone a process into the container of ``init_pid`` and its ``cgroup`` ("" for none); it does ``inside`` there.

    Raises:
        StepFailed: the kernel refused a step.
        OSError: init has ended.
    """
    cgroup_fd = lifecycle.open_fd(lifecycle.entrance(cgroup, init_pid)) if cgroup else -1
    pidfd = process.pidfd_open(init_pid)
    try:
        stage: tuple[Operation[Init], ...] = (
            Undumpable(),
            *compile_oom_score(spec),
            JoinProcess(pidfd, sum(flag for kind, flag in FLAGS.items() if kind != "cgroup")),
        )
        born: tuple[Operation[Init], ...] = (JoinProcess(pidfd, FLAGS["cgroup"]), *compile_birth(), *inside)
        return executor.spawn(stage, 0, born, stdio, cgroup_fd, "clone3 into the container")
    finally:
        os.close(pidfd)
        if cgroup_fd >= 0:
            os.close(cgroup_fd)
