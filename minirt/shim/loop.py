"""The shim's event loop: descriptors, timers and children, in one thread.

asyncio would do all of this and bring a child watcher, an executor and 60 ms of imports; a process that is forked from
a warm zygote and forks containers itself wants none of them.
"""

import _signal  # type: ignore[import-not-found]  # the same without enumerations, which cost 200 kB at first use
import heapq
import itertools
import os
import select
import signal
import time
from collections.abc import Callable

Callback = Callable[[], object]
ChildCallback = Callable[[int, int], None]


def _ignore(*_: object) -> None:
    """Be there, so that a signal is told to the wake-up pipe."""


class Timer:
    """A callback that becomes due unless it is cancelled before."""

    def __init__(self, callback: Callback) -> None:
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Make it do nothing when it is due."""
        self.callback = None


class Loop:
    """Calls back when a descriptor is ready, a time has come, or a child has ended."""

    def __init__(self, on_child: ChildCallback) -> None:
        self._on_child = on_child
        self._epoll = select.epoll()
        self._watched: dict[int, Callback] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._running = True
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.signal(signal.SIGCHLD, _ignore)
        _signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        self.watch(self._wake_r, self._reap)

    def watch(self, fd: int, ready: Callback, events: int = select.EPOLLIN) -> None:
        """Call ``ready`` whenever ``fd`` can be read (or is what ``events`` says: EPOLLOUT, EPOLLPRI)."""
        self._epoll.register(fd, events)
        self._watched[fd] = ready

    def forget(self, fd: int) -> None:
        """Stop watching ``fd``; one that is not watched is fine."""
        if self._watched.pop(fd, None):
            self._epoll.unregister(fd)

    def after(self, seconds: float, callback: Callback) -> Timer:
        """Call ``callback`` once, ``seconds`` from now."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def stop(self) -> None:
        """Leave ``run`` once the callback under way has returned."""
        self._running = False

    def close(self) -> None:
        """Close what it has opened itself."""
        _signal.set_wakeup_fd(-1)
        self._epoll.close()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def run(self) -> None:
        """Call back until ``stop``."""
        while self._running:
            for fd, _ in self._epoll.poll(self._until_next_timer()):
                ready = self._watched.get(fd)
                if ready:
                    ready()
            self._fire_timers()

    def _until_next_timer(self) -> float | None:
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _fire_timers(self) -> None:
        while self._timers and self._timers[0][0] <= time.monotonic():
            timer = heapq.heappop(self._timers)[2]
            if timer.callback:
                timer.callback()

    def _reap(self) -> None:
        """Collect every child that has ended: containers, exec'd processes, and orphans given to this subreaper."""
        try:
            while os.read(self._wake_r, 512):
                pass
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            self._on_child(pid, code if code >= 0 else 128 - code)
