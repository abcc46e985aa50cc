"""inotify: the kernel tells what happens in directories.

Who makes, renames or removes a file has queued the event before the system call returns, so what is not in the queue
has not happened. A queue that was full has lost some, and says so (IN_Q_OVERFLOW).

Source: inotify(7).
"""

import os
import struct
from typing import NamedTuple

from minirt.linux._native import lib
from minirt.linux.mount import checked

IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x1000000
IN_DONT_FOLLOW = 0x2000000

HEADER = struct.Struct("iIII")
"""Of an event: watch descriptor, mask, cookie, and the length of the name behind it."""
MOST_BYTES = 1 << 16


class Event(NamedTuple):
    """Something that has happened: in which watch, what (``mask``), and to which name in the directory."""

    watch: int
    mask: int
    name: str


def init() -> int:
    """Return a new queue, that nobody waits at. Raises OSError: EMFILE, too many for this user or this process."""
    return checked(lib.rt_inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def add_watch(queue: int, path: str, mask: int) -> int:
    """Have what happens in a directory queued; return the watch's number: the same one where it is watched already.

    Raises OSError: ENOENT; ENOTDIR (IN_ONLYDIR); ENOSPC, there are fs.inotify.max_user_watches.
    """
    return checked(lib.rt_inotify_add_watch(queue, os.fsencode(path), mask), path)


def rm_watch(queue: int, watch: int) -> None:
    """End a watch; events that are queued stay, and IN_IGNORED follows. Raises OSError: EINVAL, it has ended."""
    checked(lib.rt_inotify_rm_watch(queue, watch))


def read(queue: int) -> list[Event]:
    """Return all that is queued, the oldest first."""
    found: list[Event] = []
    try:
        while data := os.read(queue, MOST_BYTES):
            found += _events(data)
    except BlockingIOError:
        pass
    return found


def _events(data: bytes) -> list[Event]:
    found, at = [], 0
    while at < len(data):
        watch, mask, _, length = HEADER.unpack_from(data, at)
        at += HEADER.size
        found.append(Event(watch, mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))))
        at += length
    return found
