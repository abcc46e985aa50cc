"""The kinds of namespace: their names in the OCI spec and in /proc/PID/ns, their clone flags, and how to join one.

Source: namespaces(7), setns(2).
"""

import os

from minirt.linux import fds, process
from minirt.linux.operation import Operation

FLAGS = {
    "mount": process.CLONE_NEWNS,
    "pid": process.CLONE_NEWPID,
    "uts": process.CLONE_NEWUTS,
    "ipc": process.CLONE_NEWIPC,
    "network": process.CLONE_NEWNET,
    "cgroup": process.CLONE_NEWCGROUP,
    "time": process.CLONE_NEWTIME,
    "user": process.CLONE_NEWUSER,
}
"""The clone flag of each kind, by its name in the OCI runtime spec."""

PROC_NAMES = {
    "mount": "mnt",
    "pid": "pid",
    "uts": "uts",
    "ipc": "ipc",
    "network": "net",
    "cgroup": "cgroup",
    "time": "time",
    "user": "user",
}
"""The file of each kind in /proc/PID/ns."""

CLONE_NAMES = {
    "mount": "CLONE_NEWNS",
    "pid": "CLONE_NEWPID",
    "uts": "CLONE_NEWUTS",
    "ipc": "CLONE_NEWIPC",
    "network": "CLONE_NEWNET",
    "cgroup": "CLONE_NEWCGROUP",
    "time": "CLONE_NEWTIME",
    "user": "CLONE_NEWUSER",
}


class JoinNamespace(Operation[object], frozen=True):
    """Join a pinned namespace. A PID namespace takes effect for the next child only."""

    kind: str
    path: str

    def describe(self) -> str:
        """Return the operation in words."""
        return f"setns {self.path} ({CLONE_NAMES[self.kind]})"

    def execute(self, context: object) -> None:
        """Open the namespace's file and enter it."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            process.setns(fd, FLAGS[self.kind])
        finally:
            os.close(fd)


class MakeNamespace(Operation[object], frozen=True):
    """Give this process a new namespace, whose files belong to who it is now."""

    kind: str

    def describe(self) -> str:
        """Return the operation in words."""
        return f"unshare {CLONE_NAMES[self.kind]}"

    def execute(self, context: object) -> None:
        """Make it. Raises OSError: EPERM, ENOSPC (too many)."""
        process.unshare(FLAGS[self.kind])


class OffsetClocks(Operation[object], frozen=True):
    """Have the next child live in a time namespace of its own, its clocks this far ahead of the host's (or behind).

    ``offsets`` are (clock, seconds, nanoseconds). They can be set only while nobody is in it yet: a stage does this.
    """

    offsets: tuple[tuple[str, int, int], ...]

    def describe(self) -> str:
        """Return the operation in words."""
        said = ", ".join(f"{clock} {seconds} s {nanoseconds} ns" for clock, seconds, nanoseconds in self.offsets)
        return f"unshare CLONE_NEWTIME, write {said} to /proc/self/timens_offsets"

    def execute(self, context: object) -> None:
        """Make it, and set its clocks. Raises OSError: EINVAL (the kernel has none), ERANGE (before its clock's 0).

        Source: time_namespaces(7).
        """
        process.unshare(process.CLONE_NEWTIME)
        lines = [f"{clock} {seconds} {nanoseconds}\n" for clock, seconds, nanoseconds in self.offsets]
        fds.write_file("/proc/self/timens_offsets", "".join(lines))


class SetHostname(Operation[object], frozen=True):
    """Name this UTS namespace."""

    name: str

    def describe(self) -> str:
        """Return the operation in words."""
        return f"sethostname {self.name}"

    def execute(self, context: object) -> None:
        """Set the host name."""
        process.sethostname(self.name)
