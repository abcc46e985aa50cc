"""What a process's private memory is, and how a fork lets go of the copies that it has of its parent's.

    zygote    heaps ── back() ──▶ the same bytes, mapped privately from a file in memory
    a child   counts a reference up, and down again: the kernel has copied the page for it
    a child   give_back(): the copies that equal the file's pages go, and the file's are seen again

Without a file, memory that is let go of reads as zeros. Python writes into all that it looks at, so a process that was
forked, did its work and now waits holds hundreds of such copies; a hundred shims do.

Source: madvise(2), MADV_DONTNEED; proc_pid_maps(5), proc_pid_pagemap(5)
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from minirt.linux import fds
from minirt.linux._native import lib
from minirt.linux.mount import checked

NAME = "minirt-memory"
LARGE_BYTES = 1 << 18
"""What Python takes from the kernel at once is larger; what a thread has for itself is not."""


class Piece(NamedTuple):
    """A mapping: its addresses, and what lies behind it ("" for nothing)."""

    begin: int
    end: int
    name: str

    @property
    def size(self) -> int:
        """Return its length in bytes."""
        return self.end - self.begin


class _Backed(NamedTuple):
    begin: int
    size: int
    original: int


_backed: list[_Backed] = []


def _pieces() -> Iterator[tuple[str, Piece]]:
    with open("/proc/self/maps") as maps:
        for words in map(str.split, maps):
            begin, end = (int(word, 16) for word in words[0].split("-"))
            yield words[1], Piece(begin, end, words[5] if len(words) > 5 else "")


def heaps() -> Iterator[Piece]:
    """Yield what is there to be allocated from, and belongs to no library; and the file behind it."""
    file = f"/memfd:{NAME}"
    return (one for kind, one in _pieces() if one.name == file or (kind == "rw-p" and one.name in ("", "[heap]")))


def large() -> Iterator[Piece]:
    """Yield the large pieces that are private and can be written: Python's, and not what this thread has for itself."""
    thread = lib.rt_thread_address()
    for kind, one in _pieces():
        if kind == "rw-p" and one.size >= LARGE_BYTES and one.name != "[stack]" and not one.begin <= thread < one.end:
            yield one


def back() -> None:
    """Put a file behind what is large of this process's memory, for the children that it will have.

    Raises OSError: ENOMEM, EMFILE.
    """
    offset = 0
    with fds.closing(os.memfd_create(NAME, os.MFD_CLOEXEC)) as fd:
        for piece in list(large()):
            original = checked(lib.rt_back(fd, offset, piece.begin, piece.size))
            _backed.append(_Backed(piece.begin, piece.size, original))
            offset += piece.size


def is_backed() -> bool:
    """Say whether this process, or the one that it was forked from, has a file behind its memory."""
    return bool(_backed)


def give_back() -> int:
    """Let go of the copies that are as ``back`` found them; return how many pages that were.

    Raises OSError: EMFILE.
    """
    with fds.closing(os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)) as fd:
        return sum(checked(lib.rt_give_back(fd, *one)) for one in _backed)
