"""Usage: what a cgroup has consumed. What a missing controller would have told is None.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from msgspec import Struct


class Pressure(Struct, frozen=True):
    """How long tasks waited for a resource: shares of time in percent, and all of it. Source: accounting/psi."""

    avg10: float
    avg60: float
    avg300: float
    total_usec: int


class Usage(Struct, frozen=True):
    """One look. CPU times are microseconds since the cgroup was made; the working set is what cannot be reclaimed."""

    cpu_usec: int | None = None
    cpu_user_usec: int | None = None
    cpu_system_usec: int | None = None
    nr_throttled: int | None = None
    throttled_usec: int | None = None
    memory_bytes: int | None = None
    working_set_bytes: int | None = None
    rss_bytes: int | None = None
    memory_limit_bytes: int | None = None
    swap_bytes: int | None = None
    page_faults: int | None = None
    major_page_faults: int | None = None
    pids: int | None = None
    read_bytes: int | None = None
    write_bytes: int | None = None
    cpu_pressure: dict[str, Pressure] | None = None
    memory_pressure: dict[str, Pressure] | None = None
    io_pressure: dict[str, Pressure] | None = None


def usage(path: str) -> Usage:
    """Return what the cgroup has consumed. One that is gone, or lacks a controller, tells None."""
    cpu, memory = _table(f"{path}/cpu.stat"), _table(f"{path}/memory.stat")
    current = _number(f"{path}/memory.current")
    idle = memory.get("inactive_file", 0)
    return Usage(
        cpu_usec=cpu.get("usage_usec"),
        cpu_user_usec=cpu.get("user_usec"),
        cpu_system_usec=cpu.get("system_usec"),
        nr_throttled=cpu.get("nr_throttled"),
        throttled_usec=cpu.get("throttled_usec"),
        memory_bytes=current,
        working_set_bytes=None if current is None else max(0, current - idle),
        rss_bytes=memory.get("anon"),
        memory_limit_bytes=_number(f"{path}/memory.max"),
        swap_bytes=_number(f"{path}/memory.swap.current"),
        page_faults=memory.get("pgfault"),
        major_page_faults=memory.get("pgmajfault"),
        pids=_number(f"{path}/pids.current"),
        read_bytes=_io(path, "rbytes"),
        write_bytes=_io(path, "wbytes"),
        cpu_pressure=_pressure(f"{path}/cpu.pressure"),
        memory_pressure=_pressure(f"{path}/memory.pressure"),
        io_pressure=_pressure(f"{path}/io.pressure"),
    )


def parse_pressure(text: str) -> dict[str, Pressure]:
    """Return the lines of a pressure file, ``some avg10=0.00 avg60=0.00 avg300=0.00 total=0``, by their first word."""
    found = {}
    for line in text.splitlines():
        name, *words = line.split()
        fields = dict(word.split("=") for word in words)
        avg10, avg60, avg300 = (float(fields[key]) for key in ("avg10", "avg60", "avg300"))
        found[name] = Pressure(avg10, avg60, avg300, int(fields["total"]))
    return found


def _pressure(file: str) -> dict[str, Pressure] | None:
    """Return a pressure file's lines, None where the kernel keeps none (CONFIG_PSI, psi=0)."""
    text = _text(file)
    return parse_pressure(text) if text else None


def parse_table(text: str) -> dict[str, int]:
    """Return the numbers of a flat keyed file, a ``key value`` a line."""
    pairs = (line.partition(" ") for line in text.splitlines())
    return {key: int(value) for key, _, value in pairs if value.isdigit()}


def _table(file: str) -> dict[str, int]:
    return parse_table(_text(file) or "")


def _number(file: str) -> int | None:
    text = _text(file)
    return int(text) if text and text.strip().isdigit() else None


def _io(path: str, key: str) -> int | None:
    """Return the sum over devices of one key of io.stat, whose lines are ``8:0 rbytes=1 wbytes=2 …``."""
    text = _text(f"{path}/io.stat")
    if text is None:
        return None
    words = (word.partition("=") for word in text.split())
    return sum(int(value) for name, _, value in words if name == key)


def _text(file: str) -> str | None:
    try:
        with open(file) as opened:
            return opened.read()
    except OSError:
        return None  # no such controller here, or the cgroup was removed between two files
