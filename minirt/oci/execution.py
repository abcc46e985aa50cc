"""How the kernel is to run a container's process: scheduler, I/O priority, CPUs, execution domain.

Each is set right before rights are given up, by init or an exec'd process on itself, and outlasts execve.
Source: https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-process
"""

import os

from minirt import journal
from minirt.errors import InvalidInput
from minirt.linux import scheduling
from minirt.linux.calls import Call, call
from minirt.linux.operation import Operation

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
PERSONALITIES = {"LINUX": 0, "LINUX32": 8}
MOST_CPUS = 8192


class SetScheduler(Operation[object], frozen=True):
    """Choose the scheduling policy. ``priority`` is real-time's; the last three, in ns, SCHED_DEADLINE's."""

    policy: str
    flags: tuple[str, ...] = ()
    nice: int = 0
    priority: int = 0
    runtime: int = 0
    deadline: int = 0
    period: int = 0

    def __post_init__(self) -> None:
        """Refuse names that the kernel does not know, and a nice value that it would cut."""
        _known("process.scheduler.policy", self.policy, POLICIES)
        for flag in self.flags:
            _known("process.scheduler.flags", flag, SCHEDULER_FLAGS)
        if not -20 <= self.nice <= 19:
            raise InvalidInput(f"use process.scheduler.nice {self.nice}", "it is not within -20 to 19")

    def describe(self) -> str:
        """Return the operation in words."""
        numbers = {name: getattr(self, name) for name in ("nice", "priority", "runtime", "deadline", "period")}
        words = [self.policy, *self.flags, *(f"{name} {number}" for name, number in numbers.items() if number)]
        return "sched_setattr " + " ".join(words)

    def execute(self, context: object) -> None:
        """Set it."""
        flags = sum(SCHEDULER_FLAGS[flag] for flag in set(self.flags))
        times = (self.runtime, self.deadline, self.period)
        scheduling.sched_setattr(POLICIES[self.policy], flags, self.nice, self.priority, *times)


class SetIoPriority(Operation[object], frozen=True):
    """Choose how soon this process's I/O is served: its class, and 0 (first) to 7 within it."""

    level: str
    priority: int = 0

    def __post_init__(self) -> None:
        """Refuse what the kernel would."""
        _known("process.ioPriority.class", self.level, IO_CLASSES)
        if not 0 <= self.priority <= 7:
            raise InvalidInput(f"use process.ioPriority.priority {self.priority}", "it is not within 0 to 7")

    def describe(self) -> str:
        """Return the operation in words."""
        return f"ioprio_set {self.level} {self.priority}"

    def execute(self, context: object) -> None:
        """Set it."""
        scheduling.ioprio_set(IO_CLASSES[self.level], self.priority)


class SetAffinity(Operation[object], frozen=True):
    """Say which CPUs this process may run on; those that its cgroup does not have do not count."""

    cpus: tuple[int, ...]

    def describe(self) -> str:
        """Return the operation in words."""
        return f"sched_setaffinity {','.join(map(str, self.cpus))}"

    def execute(self, context: object) -> None:
        """Set it. Raises OSError: EINVAL, this machine, or the cgroup, has none of them."""
        journal.step("sched_setaffinity", os.sched_setaffinity, 0, self.cpus)


class SetPersonality(Operation[object], frozen=True):
    """Choose the execution domain: LINUX, or LINUX32, where uname tells of a 32-bit machine."""

    domain: str

    def __post_init__(self) -> None:
        """Refuse a name that the specification does not have."""
        _known("linux.personality.domain", self.domain, PERSONALITIES)

    def describe(self) -> str:
        """Return the operation in words."""
        return f"personality {self.domain}"

    def execute(self, context: object) -> None:
        """Set it."""
        scheduling.personality(PERSONALITIES[self.domain])

    def calls(self, context: object) -> list[Call]:
        """Return the one call."""
        return [call("personality", PERSONALITIES[self.domain])]


def cpu_list(text: str, field: str) -> tuple[int, ...]:
    """Return the numbers of a list of CPUs (``0-2,7``). Raises InvalidInput: it is none; ``field`` names it."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal()) or not int(first) <= int(last) < MOST_CPUS:
            raise InvalidInput(f"use {field} {text!r}", f"{part!r} is no CPU and no range of them", "such are 0-3,7")
        found.update(range(int(first), int(last) + 1))
    return tuple(sorted(found))


def _known(field: str, name: str, names: dict[str, int]) -> None:
    if name not in names:
        raise InvalidInput(f"use {field} {name!r}", "there is none of this name", ", ".join(names))
