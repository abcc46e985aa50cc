"""The journal: the one funnel that every change of kernel state goes through.

Whoever changes something calls ``journal.step("mount", function, *arguments)`` instead of ``function(*arguments)``,
always by that qualified name, so that there is exactly one place to watch:

    caller ── journal.step(name, function, *arguments) ──▶ function(*arguments) ──▶ kernel
                       │
                       └─ a sink is set? ─▶ Record(what, outcome, duration, process, stage, source line, cause)

With no sink the funnel is a call and a comparison. ``stage`` names the process (cli, zygote, shim, stage, init),
``cause`` the field of the user's YAML that asked for the step. A container's init has no file to write to: its sink
sends records over the sync socket, and the shim appends them (with init's host pid, which init cannot know).
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Record(NamedTuple):
    """One step. Times are CLOCK_MONOTONIC nanoseconds; ``errno`` is 0 when the step succeeded."""

    at_ns: int
    took_ns: int
    pid: int
    stage: str
    step: str
    arguments: str
    result: str
    errno: int
    source: str
    cause: str


Sink = Callable[[Record], None]

IN_THE_CHILD: dict[str, object] = {"fork": 0, "clone3": (0, -1)}
"""What the steps that return twice return the second time. The parent's record is the one."""

stage = "cli"
cause = ""
sink: Sink | None = None


def step(name: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Do one step: call ``function``, and hand a Record of it to the sink if there is one.

    ``name`` is the kernel's name for it (``mount``, ``clone3``), or ``write``/``mkdir``/``netlink``/``nft``.
    What ``function`` raises goes on to the caller; an OSError's errno is recorded, -1 for what has none.
    """
    if sink is None:
        return function(*args, **kwargs)
    return _recorded(sink, name, function, *args, **kwargs)


def _recorded(to: Sink, name: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    caller = sys._getframe(2)
    source = f"{short(caller.f_code.co_filename)}:{caller.f_lineno}"
    begun = time.monotonic_ns()

    def record(result: str, errno: int) -> None:
        took = time.monotonic_ns() - begun
        to(Record(begun, took, os.getpid(), stage, name, shown(args), result, errno, source, cause))

    try:
        value = function(*args, **kwargs)
    except Exception as error:
        record("", getattr(error, "errno", None) or -1)
        raise
    if name not in IN_THE_CHILD or value != IN_THE_CHILD[name]:
        record("" if value is None else shown((value,)), 0)
    return value


@contextmanager
def because(field: str) -> Iterator[None]:
    """Name the field of the user's YAML that causes the steps inside the block."""
    global cause
    before, cause = cause, field or cause
    try:
        yield
    finally:
        cause = before


def open_file(path: str) -> None:
    """Append every step of this process to a file, one JSON array a line. Raises OSError: it cannot be opened.

    A record is one write(2) of an O_APPEND file, so processes may share it.
    """
    global sink
    sink = _writer_to(_opened(path))


@contextmanager
def kept_in(path: str) -> Iterator[None]:
    """Append the steps inside the block to a file (none for ""), as ``open_file`` does, and close it."""
    global sink
    if not path:
        yield
        return
    before, fd = sink, _opened(path)
    sink = _writer_to(fd)
    try:
        yield
    finally:
        sink = before
        os.close(fd)


def _opened(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _writer_to(fd: int) -> Sink:
    import json

    def write(record: Record) -> None:
        with suppress(OSError):  # a full disk costs the record, not the step
            os.write(fd, json.dumps(record).encode() + b"\n")

    return write


def read_file(path: str) -> list[Record]:
    """Return the records of a file that ``open_file`` made, in the order of their beginning."""
    import json

    with open(path) as lines:
        return sorted(Record(*json.loads(line)) for line in lines)


def note(name: str, arguments: str, errno: int = 0, *, pid: int = 0, of: str = "") -> None:
    """Record a step of another process, ``pid`` in stage ``of``: its execve is known by how their socket ends."""
    if sink is not None:
        now = time.monotonic_ns()
        sink(Record(now, 0, pid or os.getpid(), of or stage, name, arguments, "", errno, "", cause))


def shown(values: tuple[object, ...]) -> str:
    """Return arguments as a reader wants them: bytes decoded, long values cut."""
    return ", ".join(_one(value) for value in values)


def _one(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return repr(_cut(value)) if isinstance(value, str) else _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."


def short(filename: str) -> str:
    """Return a source file as records name it: from the package on."""
    return "minirt/" + filename.rpartition("/minirt/")[2] if "/minirt/" in filename else filename
