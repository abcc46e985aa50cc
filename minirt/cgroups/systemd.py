"""A container's cgroup as a transient scope of systemd's, asked for over D-Bus: where systemd is PID 1, and engines say
``--systemd-cgroup``, the tree is systemd's, and what it did not make it may take controllers from.

    anchor ── StartTransientUnit(scope, Slice, Delegate, PIDs=[anchor], limits) ── JobRemoved ── clone3 ── anchor ends

A scope must have a process from the start, and init is to be born in its cgroup: an anchor stands there until it is.
Limits are properties of the scope as well as written to its files: systemd writes its own at each daemon-reload.
The scope goes when nobody lives in it any more (CollectMode: also one that systemd calls failed, as after an OOM kill),
and is stopped when the container is deleted: what has no cgroup any more, systemd cannot see to be empty.

Source: systemd.resource-control(5), org.freedesktop.systemd1(5), https://systemd.io/CGROUP_DELEGATION
"""

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from minirt import journal
from minirt.cgroups import tree
from minirt.cgroups.limits import Setting
from minirt.cgroups.plan import EnableControllers, MakeCgroup, WriteCgroup
from minirt.errors import Conflict, InvalidInput, StepFailed
from minirt.linux.operation import Operation

BUS_NAME = "org.freedesktop.systemd1"
OBJECT = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
EXISTS = "org.freedesktop.systemd1.UnitExists"
GONE = "org.freedesktop.systemd1.NoSuchUnit"
TIMEOUT_S = 30.0
NO_LIMIT = (1 << 64) - 1
HUNDREDTH_US = 10_000
"""systemd keeps a CPU quota in hundredths of a CPU, of which each second has this many microseconds."""

Property = tuple[str, tuple[str, Any]]


class Scope(NamedTuple):
    """A scope's unit name, the slice that it lies in, and its directory below the cgroup2 mount."""

    unit: str
    slice: str
    path: str


def scope_of(cgroups_path: str, container_id: str) -> Scope:
    """Return the scope that ``slice:prefix:name`` names; an empty path is the container's own in system.slice.

    Raises:
        InvalidInput: the path is of another form, or names no slice.
    """
    if not cgroups_path:
        cgroups_path = f":minirt:{container_id}"
    parts = cgroups_path.split(":")
    if len(parts) != 3:
        why = f"systemd's form is slice:prefix:name, and it is {cgroups_path!r}"
        raise InvalidInput("use linux.cgroupsPath", why, "name it so, or leave out --systemd-cgroup")
    slice_name, prefix, name = parts
    slice_name = slice_name or "system.slice"
    if not slice_name.endswith(".slice") or "/" in cgroups_path or not name:
        raise InvalidInput("use linux.cgroupsPath", f"{cgroups_path!r} names no slice, or no scope in one")
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    return Scope(unit, slice_name, "/" + "/".join([*slices(slice_name), unit]))


def slices(name: str) -> list[str]:
    """Return the slices from the outermost in: ``a-b.slice`` lies in ``a.slice``. Source: systemd.slice(5)."""
    parts = name.removesuffix(".slice").split("-")
    return ["-".join(parts[: count + 1]) + ".slice" for count in range(len(parts)) if name != "-.slice"]


def require() -> None:
    """Return if systemd is PID 1. Raises StepFailed: it is not."""
    if not tree.is_systemd():
        why = "systemd is not running on this host"
        raise StepFailed("use systemd's cgroups", why, "leave out --systemd-cgroup: cgroups are then made without it")


class StartScope(Operation[object], frozen=True):
    """Have systemd make a scope, with its limits, around a process that stands there until init does."""

    unit: str
    slice: str
    anchor: int
    settings: tuple[Setting, ...] = ()

    def describe(self) -> str:
        """Return one line."""
        return f"have systemd start {self.unit} in {self.slice} (StartTransientUnit, Delegate=yes)"

    def execute(self, context: object, /) -> None:
        """Start it, and wait until it is there. Raises Conflict: there is one; StepFailed: systemd refused."""
        journal.step("StartTransientUnit", self._start)

    def _start(self) -> None:
        listed = [
            ("Description", ("s", f"container {self.unit.removesuffix('.scope')}")),
            ("Slice", ("s", self.slice)),
            ("Delegate", ("b", True)),
            ("CollectMode", ("s", "inactive-or-failed")),
            ("DefaultDependencies", ("b", False)),
            ("PIDs", ("au", [self.anchor])),
            *((name, ("b", True)) for name in ("MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting")),
            *properties(self.settings),
        ]
        _start_unit(self.unit, listed)


def in_scope(shim: Sequence[Operation[object]], scope: Scope, anchor: int) -> tuple[Operation[object], ...]:
    """Return the cgroup part of a plan where systemd makes the cgroup, and those above it."""
    own = [one for one in shim if not isinstance(one, MakeCgroup | EnableControllers)]
    settings = tuple(one.setting for one in own if isinstance(one, WriteCgroup))
    return (StartScope(scope.unit, scope.slice, anchor, settings), *own)


@contextmanager
def anchor() -> Iterator[int]:
    """Have a process that does nothing for as long as the block, or this process, lasts; yield its pid."""
    ours, its = os.pipe()
    pid = journal.step("fork", os.fork)
    if pid == 0:
        os.close(its)
        os.read(ours, 1)
        os._exit(0)
    os.close(ours)
    try:
        yield pid
    finally:
        os.close(its)
        os.waitpid(pid, 0)


def stop(unit: str) -> None:
    """Have systemd forget a scope in which nobody lives any more; one that it has forgotten is fine.

    Raises:
        StepFailed: it refused.
    """
    with _bus(f"stop {unit}") as call:
        try:
            (job,) = call("StopUnit", "ss", (unit, "replace"))
        except _Refused as error:
            if error.name != GONE:
                raise StepFailed(f"stop {unit}", f"systemd answers {error}") from error
        else:
            call.result_of(job)


def set_properties(unit: str, settings: Sequence[Setting]) -> None:
    """Tell systemd of a scope's new limits; one that systemd has forgotten is fine. Raises StepFailed: it refused."""
    with _bus(f"change the limits of {unit}") as call:
        try:
            call("SetUnitProperties", "sba(sv)", (unit, True, properties(settings)))
        except _Refused as error:
            if error.name != GONE:
                raise StepFailed(f"change the limits of {unit}", f"systemd answers {error}") from error


def properties(settings: Sequence[Setting]) -> list[Property]:
    """Return limits as a unit's properties; what systemd has no property for, or no such words, is only in the files.

    Raises:
        InvalidInput: a list of CPUs or of memory nodes is none.
    """
    found: list[Property] = []
    for setting in settings:
        value = setting.value
        match setting.file:
            case file if file in NUMBERS and (value == "max" or value.isdecimal()):
                found.append((NUMBERS[file], ("t", NO_LIMIT if value == "max" else int(value))))
            case "cpu.max" if BANDWIDTH.fullmatch(value):
                found += _bandwidth(*value.split())
            case "cpuset.cpus" | "cpuset.mems":
                name = "AllowedCPUs" if setting.file == "cpuset.cpus" else "AllowedMemoryNodes"
                found.append((name, ("ay", _mask(value))))
            case _:
                continue
    return found


NUMBERS = {
    "memory.max": "MemoryMax",
    "memory.low": "MemoryLow",
    "memory.high": "MemoryHigh",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
    "io.weight": "IOWeight",
}
BANDWIDTH = re.compile("([0-9]+|max) [1-9][0-9]*")


def _bandwidth(quota: str, period: str) -> list[Property]:
    """Return a CPU quota as microseconds a second, in whole hundredths of a CPU: never less than was asked for."""
    per_second = NO_LIMIT
    if quota != "max":
        per_second = math.ceil(int(quota) * 1_000_000 / int(period) / HUNDREDTH_US) * HUNDREDTH_US
    return [("CPUQuotaPerSecUSec", ("t", per_second)), ("CPUQuotaPeriodUSec", ("t", int(period)))]


def _mask(numbers: str) -> bytes:
    """Return ``0-2,7`` as a bit mask, the lowest number in the first byte's lowest bit. Raises InvalidInput."""
    mask = 0
    for part in numbers.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal()) or int(last) > 1 << 16:
            raise InvalidInput(f"use {numbers!r} as a list of CPUs or nodes", f"{part!r} is no number and no range")
        for number in range(int(first), int(last) + 1):
            mask |= 1 << number
    return mask.to_bytes((mask.bit_length() + 7) // 8 or 1, "little")


class _Refused(Exception):
    """systemd's answer is an error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


def _start_unit(unit: str, listed: list[Property]) -> None:
    what = f"start {unit}"
    with _bus(what) as call:
        try:
            (job,) = call("StartTransientUnit", "ssa(sv)a(sa(sv))", (unit, "fail", listed, []))
        except _Refused as error:
            if error.name == EXISTS:
                do = f"see systemctl status {unit}; stop it, or choose another id"
                raise Conflict(what, "systemd has a unit of this name", do) from error
            raise StepFailed(what, f"systemd answers {error}", step="StartScope") from error
        result = call.result_of(job)
    if result != "done":
        raise StepFailed(what, f"systemd's job ended as {result}", f"see systemctl status {unit}", step="StartScope")


class _Call:
    """Calls to systemd's manager, over one connection."""

    def __init__(self, connection: Any) -> None:
        import jeepney

        self._jeepney, self._connection = jeepney, connection
        rule = jeepney.MatchRule(type="signal", interface=MANAGER, member="JobRemoved", path=OBJECT)
        self._matching = connection.filter(rule, bufsize=1000)
        self._ended = self._matching.__enter__()
        self._connection.send_and_get_reply(jeepney.message_bus.AddMatch(rule), timeout=TIMEOUT_S)

    def __call__(self, method: str, signature: str, body: tuple[Any, ...]) -> tuple[Any, ...]:
        """Call a method; return what it returns. Raises _Refused: an error."""
        address = self._jeepney.DBusAddress(OBJECT, bus_name=BUS_NAME, interface=MANAGER)
        message = self._jeepney.new_method_call(address, method, signature, body)
        reply = self._connection.send_and_get_reply(message, timeout=TIMEOUT_S)
        if reply.header.message_type == self._jeepney.MessageType.error:
            name = reply.header.fields.get(self._jeepney.HeaderFields.error_name, "")
            raise _Refused(name, " ".join(map(str, reply.body)))
        answer: tuple[Any, ...] = reply.body
        return answer

    def result_of(self, job: str) -> str:
        """Wait for a job's end; return how it ended (``done``, ``failed``, …)."""
        while True:
            signal = self._connection.recv_until_filtered(self._ended, timeout=TIMEOUT_S)
            _, path, _, result = signal.body
            if path == job:
                return str(result)


@contextmanager
def _bus(what: str) -> Iterator[_Call]:
    """Yield a connection to systemd. Raises StepFailed: there is none, or it does not answer."""
    try:
        from jeepney.io.blocking import open_dbus_connection
    except ImportError as error:
        raise StepFailed(what, f"{error.name} is not installed", "it is one of minirt's dependencies") from error
    try:
        with open_dbus_connection(bus="SYSTEM") as connection:
            yield _Call(connection)
    except OSError as error:
        raise StepFailed.from_os_error(what, error, do="is D-Bus's system bus running?", step="StartScope") from error
    except (ValueError, RuntimeError) as error:  # what jeepney makes of an address, or an answer, that is none
        raise StepFailed(what, str(error), "is D-Bus's system bus running?", step="StartScope") from error
