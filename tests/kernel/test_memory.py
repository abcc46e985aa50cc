"""Memory with a file behind it: a fork lets go of the pages that it left as they were, and of no others."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path

from minirt.linux import memory

PAGE = os.sysconf("SC_PAGESIZE")
TOUCHED, KEPT = 300, 40
"""Pages, of a piece of memory that is large enough to be Python's alone."""


def in_a_child(work: Callable[[], object]) -> None:
    """Run something in a fork, whose memory may be changed at will; it must not raise."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def copied_kb() -> int:
    """Return how much of this process's memory has no file behind it any more, because it was written to."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def at(page: int) -> int:
    return page * PAGE


def test_what_was_put_back_as_it_was_is_let_go_of() -> None:
    data = bytearray(os.urandom(at(TOUCHED + 1)))
    expected = bytes(data)

    def child() -> None:
        for page in range(TOUCHED):
            data[at(page)] ^= 1
        for page in range(KEPT, TOUCHED):
            data[at(page)] ^= 1
        before = copied_kb()
        assert memory.give_back() >= TOUCHED - KEPT - 1
        assert copied_kb() < before - (TOUCHED - KEPT - 100) * PAGE // 1024
        for page in range(KEPT):
            data[at(page)] ^= 1
        assert data == expected

    def parent() -> None:
        memory.back()
        assert data == expected
        in_a_child(child)
        assert data == expected

    in_a_child(parent)


def test_a_generation_later_all_is_as_its_parent_had_it() -> None:
    data = bytearray(at(TOUCHED))

    def grandchild() -> None:
        memory.give_back()
        assert data == b"\1" * at(TOUCHED)

    def parent() -> None:
        memory.back()
        data[:] = b"\1" * at(TOUCHED)
        in_a_child(grandchild)
        assert memory.give_back() >= 0
        assert data == b"\1" * at(TOUCHED)

    in_a_child(parent)


def test_a_child_goes_on_allocating() -> None:
    """Python's own heap is behind a file as well: what it holds is right before and after, and it grows."""
    known = {str(number): [number] * 10 for number in range(20000)}

    def parent() -> None:
        memory.back()
        for _ in range(3):
            more = {str(number): [number] for number in range(50000)}
            memory.give_back()
            assert all(more[str(number)] == [number] for number in range(50000))
            del more
        assert all(known[str(number)] == [number] * 10 for number in range(20000))

    in_a_child(parent)


def test_without_a_file_nothing_is_let_go_of() -> None:
    assert not memory.is_backed()
    assert memory.give_back() == 0


def test_pieces() -> None:
    assert any(piece.name == "[heap]" for piece in memory.heaps())
    assert not any(piece.name == "[stack]" for piece in [*memory.heaps(), *memory.large()])
    assert all(piece.size >= memory.LARGE_BYTES for piece in memory.large())
