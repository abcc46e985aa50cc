"""Capabilities: their names and numbers, and which ones a container gets.

The five sets of a process, and what execve makes of them for a file without capabilities of its own:

    bounding      never more than this, for good
    permitted     root: what is bounding. Another user: what is ambient
    effective     the same as permitted, then
    inheritable   only matters for files with capabilities: always empty here, as in docker since 2022
    ambient       what another user than root keeps over execve: empty unless asked for

Source: capabilities(7), include/uapi/linux/capability.h
"""

from collections.abc import Iterable

from msgspec import Struct

from minirt.errors import InvalidInput, Unsupported

IN_ORDER = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE
    SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE
    AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
    CHECKPOINT_RESTORE
"""
NAMES = tuple(f"CAP_{name}" for name in IN_ORDER.split())
"""Every capability; its index is its number (ten a line from 0)."""

NUMBERS = {name: number for number, name in enumerate(NAMES)}

DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
"""The fourteen that a container has if nothing else is said: docker's, podman's before 5 and containerd's."""


class CapabilitySets(Struct, frozen=True):
    """The five sets as names, each in the order of their numbers."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


def capability_sets(
    add: Iterable[str],
    drop: Iterable[str],
    *,
    held: frozenset[str],
    privileged: bool = False,
    uid: int = 0,
    ambient: Iterable[str] = (),
) -> CapabilitySets:
    """Return the sets of a container's process. Pure; ``held`` are those that can be given (``held_here()``).

    ``ALL`` in ``add`` is all that can be given, in ``drop`` all that is there by default. A name in both is dropped,
    as in containerd (docker adds it). ``ambient`` ones are added, and kept by another user than root, too.

    Raises:
        InvalidInput: there is no such capability.
        Unsupported: one is asked for by name that this process does not have and so cannot give.
    """
    added, dropped, kept = parse(add), parse(drop), parse(ambient)
    given = (added | kept) - {"ALL"}
    if missing := sorted(given - dropped - held, key=NUMBERS.__getitem__):
        why = "minirt does not have it itself, so it cannot be given"
        raise Unsupported(f"give the capability {missing[0]}", why, "see CapBnd in /proc/self/status; ask for less")
    base = held if privileged or "ALL" in added else frozenset(DEFAULT) & held
    if not privileged:
        base = (given if "ALL" in dropped else base | given) - dropped
    return _sets(base, uid, kept & base)


def _sets(base: frozenset[str], uid: int, ambient: frozenset[str]) -> CapabilitySets:
    bounding, raised = ordered(base), ordered(ambient)
    active = bounding if uid == 0 else raised
    return CapabilitySets(bounding, active, active, raised, raised)


def parse(names: Iterable[str]) -> frozenset[str]:
    """Return capabilities' full names: NET_ADMIN, CAP_NET_ADMIN, in any case; ALL stays.

    Raises:
        InvalidInput: there is no such capability; the nearest name is suggested.
    """
    return frozenset(_parsed(name) for name in names)


def _parsed(name: str) -> str:
    full = "CAP_" + name.upper().removeprefix("CAP_")
    if full == "CAP_ALL":
        return "ALL"
    if full in NUMBERS:
        return full
    import difflib

    near = difflib.get_close_matches(full, NAMES, 1)
    do = f"did you mean {near[0].removeprefix('CAP_')}?" if near else "capabilities(7) lists them"
    raise InvalidInput(f"use the capability {name!r}", "there is none of this name", do)


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Return names in the order of their numbers."""
    return tuple(sorted(names, key=NUMBERS.__getitem__))


def numbers(names: Iterable[str]) -> frozenset[int]:
    """Return the numbers of full names. Raises InvalidInput: there is no such capability."""
    return frozenset(NUMBERS[_parsed(name)] for name in names)


def mask(capabilities: Iterable[int]) -> int:
    """Return capabilities as the kernel's bit set."""
    return sum(1 << number for number in frozenset(capabilities))


def names_in(bits: int) -> tuple[str, ...]:
    """Return the names in a bit set, as /proc/PID/status shows them in hexadecimal; unknown bits as CAP_<number>."""
    return tuple(
        NAMES[number] if number < len(NAMES) else f"CAP_{number}"
        for number in range(bits.bit_length())
        if bits >> number & 1
    )


def last_cap() -> int:
    """Return the number of the kernel's last capability. Source: proc_sys_kernel(5)."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


def held_here() -> frozenset[str]:
    """Return what this process can give to a container: its bounding set, of those this version knows by name."""
    with open("/proc/self/status") as status:
        bits = next(int(line.split()[1], 16) for line in status if line.startswith("CapBnd:"))
    return frozenset(names_in(bits)) & NUMBERS.keys()
