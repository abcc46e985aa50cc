"""System calls that a seccomp profile is too old to know: ENOSYS in place of its default action.

A profile that allows what is listed would answer a new system call with EPERM, which no libc takes as a reason to use
the old one. So a few instructions go before libseccomp's: what is numbered beyond the last that the profile names
answers ENOSYS, as it would on the kernel that the profile was written for. runc does the same.

    ld arch;  jeq ARCH, or the next section
    ld nr;    jge LOW, or the next range;  jgt LAST: ret ENOSYS, or on to the filter

Source: seccomp(2), struct seccomp_data; linux/bpf_common.h; runc's libcontainer/seccomp/patchbpf
"""

import struct
from collections.abc import Mapping, Sequence

LOAD, JUMP, IF_EQUAL, IF_ABOVE, IF_AT_LEAST, RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x06
NUMBER_AT, ARCHITECTURE_AT = 0, 4
ANSWER_ENOSYS = 0x00050000 | 38
"""SECCOMP_RET_ERRNO with ENOSYS."""

X32_BIT = 0x40000000
"""x32's system calls have x86_64's architecture, and this bit."""

SIZE = 8
"""Of an instruction, in bytes."""

RANGE_LENGTH = 4
"""Of the test of a range, in instructions."""

Range = tuple[int, int]
"""The first number of a range, and the last that the profile names in it."""


def prologue(last: Mapping[int, int], x86_64: int, x32: int) -> bytes:
    """Return the instructions to put before a filter.

    ``last`` has the highest number named for each of libseccomp's architectures; ``x86_64`` and ``x32`` are its tokens
    for those two, which are one to the kernel.
    """
    sections = [(token, [(0, highest)]) for token, highest in last.items() if token not in (x86_64, x32)]
    if x86_64 in last:
        sections.append((x86_64, [(X32_BIT, last.get(x32, 0xFFFFFFFF)), (0, last[x86_64])]))
    return b"".join(_section(token, ranges) for token, ranges in sections)


def _section(architecture: int, ranges: Sequence[Range]) -> bytes:
    """Return the tests of one architecture: its ranges, the highest first."""
    body = _instruction(LOAD, NUMBER_AT)
    for done, (low, highest) in enumerate(ranges, 1):
        body += _range(low, highest, len(ranges) - done)
    start = _instruction(LOAD, ARCHITECTURE_AT) + _instruction(IF_EQUAL, architecture, 0, len(body) // SIZE)
    return start + body


def _range(low: int, highest: int, further: int) -> bytes:
    """Return the test of one range; a number that is known in it goes past the ``further`` ones, to the filter."""
    return (
        _instruction(IF_AT_LEAST, low, 0, RANGE_LENGTH - 1)
        + _instruction(IF_ABOVE, highest, 0, 1)
        + _instruction(RETURN, ANSWER_ENOSYS)
        + _instruction(JUMP, further * RANGE_LENGTH)
    )


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
