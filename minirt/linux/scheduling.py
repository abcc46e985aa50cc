"""How the kernel runs this process: its scheduler, the priority of its I/O, its execution domain.

Source: sched_setattr(2), ioprio_set(2), personality(2).
"""

from minirt import journal
from minirt.linux._native import lib
from minirt.linux.mount import checked

IOPRIO_WHO_PROCESS = 1
IOPRIO_CLASS_SHIFT = 13


def sched_setattr(
    policy: int, flags: int, nice: int, priority: int, runtime_ns: int, deadline_ns: int, period_ns: int
) -> None:
    """Set this process's scheduling policy and its attributes.

    Raises OSError: EPERM (no CAP_SYS_NICE, or SCHED_DEADLINE on a part of the CPUs), EINVAL (attributes of another
    policy), EBUSY (SCHED_DEADLINE: more than the CPUs can keep).
    """
    journal.step("sched_setattr", _sched_setattr, policy, flags, nice, priority, runtime_ns, deadline_ns, period_ns)


def _sched_setattr(policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int) -> None:
    checked(lib.rt_sched_setattr(0, policy, flags, nice, priority, runtime, deadline, period))


def ioprio_set(level: int, priority: int) -> None:
    """Set this process's I/O class (1 real-time, 2 best effort, 3 idle) and its priority there, 0 (first) to 7.

    Raises OSError: EPERM (real-time without CAP_SYS_ADMIN or CAP_SYS_NICE), EINVAL.
    """
    journal.step("ioprio_set", _ioprio_set, level, priority)


def _ioprio_set(level: int, priority: int) -> None:
    checked(lib.rt_ioprio_set(IOPRIO_WHO_PROCESS, 0, level << IOPRIO_CLASS_SHIFT | priority))


def personality(persona: int) -> None:
    """Set this process's execution domain (8: a 32-bit machine, for uname). Children and programs inherit it."""
    journal.step("personality", _personality, persona)


def _personality(persona: int) -> None:
    checked(lib.rt_personality(persona))
