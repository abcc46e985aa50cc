"""capget and capset with plain 64-bit sets. Source: capget(2)."""

from minirt import journal
from minirt.linux._native import ffi, lib
from minirt.linux.mount import checked

SET = ffi.typeof("uint64_t *")  # looked up here once, not by each container's init


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's capabilities; bit n is capability n. Raises OSError: EPERM (more than permitted)."""
    journal.step("capset", _capset, effective, permitted, inheritable)


def _capset(effective: int, permitted: int, inheritable: int) -> None:
    checked(lib.rt_capset(effective, permitted, inheritable))


def capget() -> tuple[int, int, int]:
    """Return this thread's (effective, permitted, inheritable) sets."""
    sets = [ffi.new(SET) for _ in range(3)]
    checked(lib.rt_capget(*sets))
    return sets[0][0], sets[1][0], sets[2][0]
