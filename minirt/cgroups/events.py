"""Out of memory: how often the kernel killed for it, and a descriptor that says when.

``oom_kill`` counts over the cgroup's whole life and is lost with it: read it before the cgroup is removed.
Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, memory.events
"""

import os

from minirt.cgroups.stats import parse_table


def memory_events(path: str) -> dict[str, int]:
    """Return the counters oom, oom_kill, oom_group_kill, max, high, low; {} where there is no memory controller."""
    try:
        with open(f"{path}/memory.events") as file:
            return parse_table(file.read())
    except OSError:
        return {}


class OomWatch:
    """A descriptor of memory.events: EPOLLPRI when it has changed since it was last read (it is always readable)."""

    def __init__(self, fd: int) -> None:
        """Take over an open memory.events."""
        self._fd = fd
        self._last: int | None = None
        self.oom_kills()

    @classmethod
    def open(cls, path: str) -> "OomWatch | None":
        """Watch a cgroup; None where it has no memory controller."""
        try:
            return cls(os.open(f"{path}/memory.events", os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            return None

    def fileno(self) -> int:
        """Return the descriptor, to be watched for POLLPRI."""
        return self._fd

    def oom_kills(self) -> int | None:
        """Return how many processes the kernel has killed for memory, and wait for the next change."""
        try:
            self._last = parse_table(os.pread(self._fd, 4096, 0).decode()).get("oom_kill")
        except OSError:
            return self._last  # the cgroup was removed: what was read last stays true
        return self._last

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)
