"""System calls as data, for a child that makes them in a row without any Python (launch.py).

Source: syscall(2); the numbers are those of the kernel's headers.
"""

import os
import sys
from collections.abc import Callable, Sequence

from msgspec import Struct

from minirt.errors import MinirtError
from minirt.linux import fds
from minirt.linux._native import lib

AT_FDCWD = -100
ANY_ERROR = (1 << 64) - 1
PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 8, 24, 38
KEYCTL_JOIN_SESSION_KEYRING = 1

Argument = int | bytes | Sequence[bytes]
"""A number; bytes that are pointed to; texts, by a NULL-terminated array of pointers."""


class Call(Struct, frozen=True):
    """One system call (a negative number: one of the few other things that rt_launch does).

    ``name`` and ``shown`` are what the journal says of it ("": nothing). ``excused`` has a bit for each errno that
    does not end the child, but is told by ``warn``. With ``takes`` the first argument is the result of the call before.
    ``refused`` makes the error of what is not excused, where there is more to say than the errno.
    """

    number: int
    arguments: tuple[Argument, ...]
    name: str = ""
    shown: tuple[object, ...] = ()
    excused: int = 0
    warn: Callable[[int], str] | None = None
    takes: bool = False
    refused: Callable[[int], MinirtError] | None = None

    def is_excused(self, number: int) -> bool:
        """Say whether the child goes on after this errno."""
        return self.excused == ANY_ERROR or bool(self.excused >> number & 1)


def call(
    name: str,
    *arguments: Argument,
    shown: tuple[object, ...] | None = None,
    is_step: bool = True,
    excused: int = 0,
    warn: Callable[[int], str] | None = None,
    takes: bool = False,
) -> Call:
    """Return a call of the kernel's by its name; the journal shows the arguments, unless ``shown`` is better."""
    said = (name, arguments if shown is None else shown) if is_step else ("", ())
    return Call(getattr(lib, f"SYS_{name}"), arguments, *said, excused, warn, takes)


def prctl(option: int, *arguments: int, excused: int = 0, warn: Callable[[int], str] | None = None) -> Call:
    """Return a prctl(2), with the zeros that it wants behind what is meant."""
    zeros = (0,) * (4 - len(arguments))
    return call("prctl", option, *arguments, *zeros, shown=(option, *arguments), excused=excused, warn=warn)


def find(paths: Sequence[str], refused: Callable[[int], MinirtError]) -> Call:
    """Return the search for the program: its result is the number of the first path that may be executed.

    ``refused`` gets the errno of the first that is there, and may not be, with its number in the bits from 16 on;
    ENOENT where none is there.
    """
    return Call(lib.CALL_FIND, ([text(path) for path in paths],), refused=refused)


def is_inside(refused: Callable[[int], MinirtError]) -> Call:
    """Return the question whether the working directory can be reached from the root (ENOENT: no)."""
    return Call(lib.CALL_IS_INSIDE, (), refused=refused)


def write_proc(path: str, data: str, excused: int, warn: Callable[[int], str]) -> list[Call]:
    """Return the calls that write a file below /proc, a process's own, as ``fds.write_file`` does.

    Raises OSError: EXDEV, it is not procfs that is there, so far as the caller of this sees.
    """
    os.close(fds.open_proc(path, os.O_PATH))
    numbers = (os.O_WRONLY | os.O_CLOEXEC, 0, fds.RESOLVE_PROC)
    how = b"".join(number.to_bytes(8, sys.byteorder) for number in numbers)
    return [
        call("openat", AT_FDCWD, text(fds.PROC), fds.PLACE, is_step=False),
        call("openat2", 0, text(path.removeprefix(fds.PROC)), how, len(how), is_step=False, takes=True),
        call("write", 0, data.encode(), len(data), shown=(path, data), excused=excused, warn=warn, takes=True),
    ]


def text(value: str) -> bytes:
    """Return a string as C has it."""
    return os.fsencode(value) + b"\0"


def excusing(*numbers: int) -> int:
    """Return the ``excused`` of these errnos, all below 64."""
    return sum(1 << number for number in numbers)
