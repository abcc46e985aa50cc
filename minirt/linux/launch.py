"""A child that runs no Python: its system calls are laid out before it is cloned, and C makes them (rt_launch).

    the caller   Call … ─ Batch: one piece of shared memory, calls and what they point to ─ clone3 ─▶ reads the outcomes
    the child                                         each call: its result, when it began, how long it took ◀┘

A child that goes on in Python copies a hundred pages of the interpreter's before it is where it wants to be, and execve
drops the page tables of all of them again. This one has none of Python's memory (MADV_DONTFORK), only what the calls
are in. That is shared, so the outcomes are there for whoever made the child.

Source: clone3(2), madvise(2)
"""

import functools
import mmap
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from minirt import journal
from minirt.linux import memory, process
from minirt.linux._native import ffi, lib
from minirt.linux.calls import ANY_ERROR, Argument, Call, text
from minirt.linux.mount import checked

LAYOUT = struct.Struct("=q6QQ4q")
"""struct rt_call of execute.c: number, arguments, excused, takes, result, begun, took."""
OUTCOME = struct.Struct("=3q")
OUTCOME_AT = LAYOUT.size - OUTCOME.size
POINTER = struct.Struct("=Q")
NOT_MADE = -(1 << 62)
MOST_ARGUMENTS = 6
BYTES, ADDRESSES = (ffi.typeof(name) for name in ("char[]", "uint64_t[]"))


class Program(Struct, frozen=True):
    """What the child becomes, and with which seccomp filter: the words are those of ``process.execute``."""

    args: Sequence[str]
    env: Sequence[str]
    program: bytes = b""
    length: int = 0
    flags: int = 0
    kept: int = 0


class Outcome(Struct, frozen=True):
    """What became of a call: its result, or minus the errno; when it began, and how long it took, in ns."""

    result: int
    begun_ns: int
    took_ns: int


class Batch:
    """Calls, and data for what follows them, laid out in memory that a child shares; ``places``: where ``more`` is."""

    def __init__(self, calls: Sequence[Call], *more: Argument) -> None:
        self._calls = calls
        self._used = LAYOUT.size * len(calls)
        arguments = [one for call in calls for one in call.arguments]
        size = self._used + sum(map(_room, arguments)) + sum(map(_room, more))
        self.size = max(size, 1)
        self._memory = mmap.mmap(-1, self.size, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
        self.address = int(ffi.cast("uintptr_t", ffi.from_buffer(BYTES, self._memory)))
        for at, call in enumerate(calls):
            values = [self._placed(one) for one in call.arguments] + [0] * (MOST_ARGUMENTS - len(call.arguments))
            record = (call.number, *values, call.excused, call.takes, NOT_MADE, 0, 0)
            LAYOUT.pack_into(self._memory, at * LAYOUT.size, *record)
        self.places = [self._placed(one) for one in more]

    def __len__(self) -> int:
        return len(self._calls)

    def _placed(self, value: Argument) -> int:
        if isinstance(value, int):
            return value & ANY_ERROR
        if isinstance(value, bytes):
            return self._put(value)
        pointers = [self._put(one) for one in value]
        return self._put(b"".join(map(POINTER.pack, (*pointers, 0))))

    def _put(self, data: bytes) -> int:
        at = self._used
        self._memory[at : at + len(data)] = data
        self._used += _aligned(len(data))
        return self.address + at

    def outcomes(self) -> Iterator[tuple[Call, Outcome]]:
        """Yield the calls that were made, in order, each with its outcome."""
        for at, call in enumerate(self._calls):
            outcome = Outcome(*OUTCOME.unpack_from(self._memory, at * LAYOUT.size + OUTCOME_AT))
            if outcome.result == NOT_MADE:
                return
            yield call, outcome


def _aligned(size: int) -> int:
    return size + 7 & ~7


def _room(value: Argument) -> int:
    if isinstance(value, int):
        return 0
    if isinstance(value, bytes):
        return _aligned(len(value))
    return sum(_aligned(len(one)) for one in value) + POINTER.size * (len(value) + 1)


def launch(
    flags: int, cgroup_fd: int, calls: Sequence[Call], becoming: Program, report: int, blank: int
) -> tuple[int, int, Batch]:
    """Make a child that makes the calls and becomes a program, all in C; return its pid, its pidfd, and its calls.

    One of the calls is ``calls.find``. One that is refused, and not excused, ends the child; its outcome says why.
    From then on it is as with ``process.execute``. ``flags`` and ``cgroup_fd`` are those of clone3.

    Raises as ``process.clone3`` does.
    """
    process.require_one_thread()
    batch = Batch(calls, *([text(word) for word in words] for words in (becoming.args, becoming.env)), becoming.program)
    argv, envp, filter = batch.places
    apart, count = _apart()
    last = (becoming.length, becoming.flags, report, 3 + becoming.kept, blank)

    def cloned(flags: int, cgroup_fd: int) -> tuple[int, int]:
        pidfd = ffi.new(process.DESCRIPTOR, -1)
        what = (batch.address, len(batch), batch.size, apart, count, argv, envp, filter)
        return checked(lib.rt_launch(flags, cgroup_fd, pidfd, *what, *last)), pidfd[0]

    pid, pidfd = journal.step("clone3", cloned, process.with_pidfd(flags, cgroup_fd), cgroup_fd)
    return pid, pidfd, batch


@functools.cache
def _apart() -> tuple[Any, int]:
    """Return (pairs of addresses, how many pairs): what is Python's alone of this process's memory, as it is now.

    What comes later is copied for children, as all of it would be.
    """
    found = [address for piece in memory.large() for address in (piece.begin, piece.end)]
    return ffi.new(ADDRESSES, found), len(found) // 2
