"""capget and capset with plain 64-bit sets. Source: capget(2)."""

import sys

from minirt import journal
from minirt.linux._native import ffi, lib
from minirt.linux.mount import checked

VERSION_3 = 0x20080522
SET = ffi.typeof("uint64_t *")  # looked up here once, not by each container's init


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's capabilities; bit n is capability n. Raises OSError: EPERM (more than permitted)."""
    journal.step("capset", _capset, effective, permitted, inheritable)


def _capset(effective: int, permitted: int, inheritable: int) -> None:
    checked(lib.rt_capset(effective, permitted, inheritable))


def in_memory(effective: int, permitted: int, inheritable: int) -> tuple[bytes, bytes]:
    """Return capset's arguments as the kernel reads them: a header, and the lower and the upper half of each set."""
    halves = [one >> shift & 0xFFFFFFFF for shift in (0, 32) for one in (effective, permitted, inheritable)]
    header, data = (b"".join(one.to_bytes(4, sys.byteorder) for one in part) for part in ((VERSION_3, 0), halves))
    return header, data


def capget() -> tuple[int, int, int]:
    """Return this thread's (effective, permitted, inheritable) sets."""
    sets = [ffi.new(SET) for _ in range(3)]
    checked(lib.rt_capget(*sets))
    return sets[0][0], sets[1][0], sets[2][0]
