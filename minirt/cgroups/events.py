"""Out of memory: how often the kernel killed for it, and a descriptor that says when.

``oom_kill`` counts over the cgroup's whole life and is lost with it: read it before the cgroup is removed.
Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, memory.events
"""

import os
import select
from pathlib import Path

from minirt.cgroups.stats import parse_table


def memory_events(path: Path) -> dict[str, int]:
    """Return the counters oom, oom_kill, oom_group_kill, max, high, low; {} where there is no memory controller."""
    try:
        return parse_table((path / "memory.events").read_text())
    except OSError:
        return {}


def oom_kills(path: Path) -> int | None:
    """Return how many processes the kernel killed for memory; None where there is no memory controller."""
    return memory_events(path).get("oom_kill")


class OomWatch:
    """A descriptor for a selector, readable when memory.events has changed since it was last read.

    A cgroup file is always readable; a change is POLLPRI, which selectors do not know. So the descriptor is an epoll
    that watches for just that, which itself is readable when it has something to say.
    """

    def __init__(self, path: Path) -> None:
        """Watch a cgroup; where it has no memory controller, never become readable."""
        self._events = -1
        self._last: int | None = None
        self._epoll = select.epoll()
        try:
            self._events = os.open(path / "memory.events", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        self._epoll.register(self._events, select.EPOLLPRI)
        self.oom_kills()

    def fileno(self) -> int:
        """Return the descriptor to select for reading."""
        return self._epoll.fileno()

    def oom_kills(self) -> int | None:
        """Return the counter as it is now, and wait for the next change; None where there never was one."""
        if self._events >= 0:
            try:
                self._last = parse_table(os.pread(self._events, 4096, 0).decode()).get("oom_kill")
            except OSError:
                # The cgroup is gone, and wakes us about it for ever: what was read last stays true.
                self._epoll.unregister(self._events)
                os.close(self._events)
                self._events = -1
        return self._last

    def close(self) -> None:
        """Stop watching."""
        self._epoll.close()
        if self._events >= 0:
            os.close(self._events)
            self._events = -1
