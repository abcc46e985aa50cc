"""When a shim rests: after its last request it gives back the memory that it has copied and not changed."""

import contextlib
import time

from minirt.linux import memory
from minirt.shim.loop import Loop

QUIET_S, EVERY_S = 1.0, 60.0
"""So long after the last request; and how often at most, for a probe may ask every few seconds."""


class Rest:
    """Counts requests, and rests when there are no more; a shim whose memory has no file behind it never does."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._requests = 0
        self._is_due = False
        self._not_before = 0.0

    def disturbed(self) -> None:
        """Take note of a request."""
        self._requests += 1
        if memory.is_backed() and not self._is_due:
            self._wait()

    def _wait(self) -> None:
        self._is_due = True
        before = self._requests
        self._loop.after(max(QUIET_S, self._not_before - time.monotonic()), lambda: self._rest_unless_more(before))

    def _rest_unless_more(self, before: int) -> None:
        if self._requests != before:
            self._wait()
            return
        self._is_due = False
        self._not_before = time.monotonic() + EVERY_S
        with contextlib.suppress(OSError):  # no descriptor left: it costs memory, and nothing else
            memory.give_back()
