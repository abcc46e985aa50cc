"""What may have changed in the state directory since it was last looked at, told by the kernel.

    sandboxes/ containers/        a directory comes or goes        ┐
    sandboxes/<id>/               sandbox.json is replaced         ├─ inotify ─┐
    containers/<id>/              container, status, config.json   ┘           ├─▶ one epoll, asked without waiting
    shims, inits of containers    a process ends ─────────────────── pidfds ───┘

Every change of the world that the lists show is one of these: records and statuses are renamed into place, whoever
writes them, and a sandbox is ready only while its shim lives. The kernel queues an event before the call that caused
it returns, so where nothing is queued nothing has changed. Follow first and read afterwards: nothing falls in between.
"""

import contextlib
import errno
import os
import select
from pathlib import Path

from minirt import paths
from minirt.engine import store
from minirt.linux import inotify, process
from minirt.linux.inotify import Event

SANDBOXES, CONTAINERS = "sandboxes", "containers"
Key = tuple[str, str]
"""SANDBOXES or CONTAINERS, and an id."""

NAMES = ("sandbox.json", "container.json", "status.json", "config.json")
"""The files that tell something of what is listed."""
MASK = (
    inotify.IN_MOVED_TO
    | inotify.IN_MOVED_FROM
    | inotify.IN_DELETE
    | inotify.IN_CLOSE_WRITE
    | inotify.IN_ONLYDIR
    | inotify.IN_DONT_FOLLOW
)


LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Lost(Exception):
    """Something has happened that nobody can tell: look at everything anew, with another Watch."""


class Watch:
    """Follows directories and processes. For one thread at a time; it takes a descriptor for each process."""

    def __init__(self) -> None:
        """Begin with nothing but the two directories of all.

        Raises:
            Lost: they are not there.
            OSError: a limit is met.
        """
        self._epoll = select.epoll()
        self._queue = -1
        self._tops: dict[int, tuple[str, str, tuple[int, int]]] = {}
        self._directories: dict[int, Key] = {}
        self._watches: dict[Key, int] = {}
        self._dying: dict[int, Key] = {}
        self._processes: dict[Key, tuple[int, int, int]] = {}
        try:
            self._queue = inotify.init()
            self._epoll.register(self._queue, select.EPOLLIN)
            for kind in (SANDBOXES, CONTAINERS):
                path = str(paths.state_root() / kind)
                watch = inotify.add_watch(self._queue, path, MASK | inotify.IN_CREATE)
                self._tops[watch] = (kind, path, _identity(path))
        except FileNotFoundError:
            self.close()
            raise Lost from None
        except (OSError, Lost):
            self.close()
            raise

    def close(self) -> None:
        """Follow nothing any more."""
        for fd in (*self._dying, self._queue):
            if fd >= 0:
                os.close(fd)
        self._dying.clear()
        self._queue = -1
        self._epoll.close()

    def all(self) -> set[Key]:
        """Return everything there is now."""
        return {(kind, name) for kind, path, _ in self._tops.values() for name in store.ids_in(Path(path))}

    def changed(self) -> set[Key]:
        """Return what may be another than at the last call; without waiting.

        Raises:
            Lost: too much has happened at once, or the directories of all are others now.
        """
        for _, path, identity in self._tops.values():
            if _identity(path) != identity:
                raise Lost
        found: set[Key] = set()
        while ready := self._epoll.poll(0):
            for fd, _ in ready:
                found |= self._told_by(fd)
        return found

    def _told_by(self, fd: int) -> set[Key]:
        if fd == self._queue:
            return {key for event in inotify.read(fd) for key in self._told(event)}
        key = self._dying.get(fd)
        if key is None:
            return set()
        self._forget_process(key)
        return {key}

    def _told(self, event: Event) -> set[Key]:
        if event.mask & inotify.IN_Q_OVERFLOW:
            raise Lost
        if event.watch in self._tops:
            if event.mask & inotify.IN_IGNORED:
                raise Lost
            key = (self._tops[event.watch][0], event.name)
            self.forget(key)  # what has this name now may be another directory
            return set() if event.name.startswith(".") else {key}
        if event.watch not in self._directories:
            return set()  # one that is no longer followed
        key = self._directories[event.watch]
        if event.mask & inotify.IN_IGNORED:
            self.forget(key)
            return {key}
        return {key} if event.name in NAMES else set()

    def follow(self, key: Key) -> bool:
        """Tell from now on what happens in a directory; return whether there is one. Raises OSError: a limit is met."""
        if key in self._watches:
            return True
        try:
            watch = inotify.add_watch(self._queue, f"{paths.state_root()}/{key[0]}/{key[1]}", MASK)
        except (FileNotFoundError, NotADirectoryError):
            return False
        self._watches[key] = watch
        self._directories[watch] = key
        return True

    def follow_process(self, key: Key, pid: int, started: int) -> bool:
        """Tell when a process that ``key`` depends on ends; return whether it lives. Raises OSError: a limit is met."""
        if self._processes.get(key, ())[1:] == (pid, started):
            return True
        self._forget_process(key)
        try:
            pidfd = process.pidfd_open(pid)
        except OSError as error:
            if error.errno in LIMITS:
                raise
            return False
        self._dying[pidfd] = key
        self._processes[key] = (pidfd, pid, started)
        self._epoll.register(pidfd, select.EPOLLIN)
        if process.is_alive(pid, started):
            return True
        self._forget_process(key)
        return False

    def forget(self, key: Key) -> None:
        """Tell nothing more of something; what is not followed is fine."""
        self._forget_process(key)
        watch = self._watches.pop(key, None)
        if watch is not None:
            del self._directories[watch]
            with contextlib.suppress(OSError):  # it has ended with its directory
                inotify.rm_watch(self._queue, watch)

    def _forget_process(self, key: Key) -> None:
        if key in self._processes:
            pidfd = self._processes.pop(key)[0]
            del self._dying[pidfd]
            self._epoll.unregister(pidfd)
            os.close(pidfd)


def _identity(path: str) -> tuple[int, int]:
    """Return what names a directory for good. Raises Lost: it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        raise Lost from None
    return found.st_dev, found.st_ino
