"""The kinds of namespace: their names in the OCI spec and in /proc/PID/ns, their clone flags, and how to join one.

Source: namespaces(7), setns(2).
"""

import os

from minirt.linux import process
from minirt.linux.operation import Operation

FLAGS = {
    "mount": process.CLONE_NEWNS,
    "pid": process.CLONE_NEWPID,
    "uts": process.CLONE_NEWUTS,
    "ipc": process.CLONE_NEWIPC,
    "network": process.CLONE_NEWNET,
    "cgroup": process.CLONE_NEWCGROUP,
}
"""The clone flag of each kind, by its name in the OCI runtime spec."""

PROC_NAMES = {"mount": "mnt", "pid": "pid", "uts": "uts", "ipc": "ipc", "network": "net", "cgroup": "cgroup"}
"""The file of each kind in /proc/PID/ns."""

CLONE_NAMES = {
    "mount": "CLONE_NEWNS",
    "pid": "CLONE_NEWPID",
    "uts": "CLONE_NEWUTS",
    "ipc": "CLONE_NEWIPC",
    "network": "CLONE_NEWNET",
    "cgroup": "CLONE_NEWCGROUP",
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


class SetHostname(Operation[object], frozen=True):
    """Name this UTS namespace."""

    name: str

    def describe(self) -> str:
        """Return the operation in words."""
        return f"sethostname {self.name}"

    def execute(self, context: object) -> None:
        """Set the host name."""
        process.sethostname(self.name)
