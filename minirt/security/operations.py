"""What a container's init gives up, in this order, before it executes its program.

    rlimits ─ oom_score_adj ─ no_new_privs ─ bounding set ─ keepcaps, groups, gid, uid, capset, ambient
        ─ seccomp, execve

The bounding set goes while CAP_SETPCAP is still there; capabilities outlast the change of uid by PR_SET_KEEPCAPS and
are then cut to size; ambient ones can be raised only when they are permitted and inheritable. As in runc.

A seccomp filter is the very last, so that it need not allow any of this. Who has no no_new_privs needs CAP_SYS_ADMIN
for it, and so keeps that one until execve, which computes the permitted and effective sets anew from the bounding, the
inheritable and the ambient set: whatever they were before is lost. (runc and crun load the filter before they change
over instead, and profiles have to allow capset and setresuid.)

Source: capabilities(7), prctl(2), credentials(7)
"""

import errno
import os
import resource
import sys
from typing import Protocol

from minirt import journal
from minirt.errors import InvalidInput
from minirt.linux import calls, capability, fds, prctl
from minirt.linux.calls import Call, call
from minirt.linux.operation import Operation
from minirt.security.capabilities import NAMES, mask, names_in

RLIMITS = {name: getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
INFINITY = (1 << 64) - 1


class Warns(Protocol):
    """A context that can pass on a warning: what was asked for is not done, and the container runs all the same."""

    def warn(self, text: str, /) -> None:
        """Tell whoever started the container."""


class SetRlimit(Operation[Warns], frozen=True):
    """Limit one resource; ``type`` is RLIMIT_NOFILE and its kin, 2**64-1 is no limit. Raising needs a privilege."""

    type: str
    soft: int
    hard: int

    def __post_init__(self) -> None:
        """Refuse what the kernel would."""
        if self.type not in RLIMITS:
            known = ", ".join(sorted(RLIMITS))
            raise InvalidInput(f"set the resource limit {self.type!r}", "there is none of this name", known)
        if not (0 <= self.soft <= INFINITY and 0 <= self.hard <= INFINITY):
            why = f"{self.soft} and {self.hard} are not numbers of 64 bits"
            raise InvalidInput(f"set {self.type}", why, f"no limit is {INFINITY}")
        if self.soft > self.hard:
            raise InvalidInput(f"set {self.type}", f"the soft limit {self.soft} is above the hard limit {self.hard}")

    def describe(self) -> str:
        """Return one line."""
        return f"prlimit64 {self.type} soft {_limit(self.soft)} hard {_limit(self.hard)}"

    def execute(self, context: Warns, /) -> None:
        """Set it; above minirt's own hard limit (EPERM: no CAP_SYS_RESOURCE), warn and go as high as that."""
        kind = RLIMITS[self.type]
        try:
            _prlimit(kind, self.soft, self.hard)
        except PermissionError:
            most = resource.getrlimit(kind)[1]
            _prlimit(kind, min(self.soft, most), most)
            context.warn(
                f"cannot set {self.type} to {_limit(self.hard)}: minirt has no CAP_SYS_RESOURCE here, and may only "
                f"lower it (the container runs with {most})"
            )


def _prlimit(kind: int, soft: int, hard: int) -> None:
    journal.step("prlimit64", resource.prlimit, 0, kind, (_native(soft), _native(hard)))


def _native(limit: int) -> int:
    return resource.RLIM_INFINITY if limit >= INFINITY >> 1 else limit


def _limit(limit: int) -> str:
    return "unlimited" if limit >= INFINITY >> 1 else str(limit)


class SetOomScoreAdj(Operation[Warns], frozen=True):
    """Say how soon the kernel should kill this for memory: -1000 never, 1000 first. Lowering it needs a privilege."""

    value: int

    def __post_init__(self) -> None:
        """Refuse what the kernel would."""
        if not -1000 <= self.value <= 1000:
            raise InvalidInput(f"use an oom_score_adj of {self.value}", "it is not within -1000 to 1000")

    def describe(self) -> str:
        """Return one line."""
        return f"write {self.value} to /proc/self/oom_score_adj"

    def execute(self, context: Warns, /) -> None:
        """Write it; warn and go on where it may not be lowered (EACCES: no CAP_SYS_RESOURCE)."""
        try:
            fds.write_file("/proc/self/oom_score_adj", str(self.value))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM):
                raise
            context.warn(self._lowered())

    def calls(self, context: Warns, /) -> list[Call]:
        """Return what writes it; it may be forbidden."""
        excused = calls.excusing(errno.EACCES, errno.EPERM)
        return calls.write_proc("/proc/self/oom_score_adj", str(self.value), excused, lambda _: self._lowered())

    def _lowered(self) -> str:
        return (
            f"cannot set oom_score_adj to {self.value}: minirt has no CAP_SYS_RESOURCE here, and may only raise it "
            "(the container runs with the value that minirt has)"
        )


class NoNewPrivileges(Operation[object], frozen=True):
    """Have execve never grant privileges: no set-user-ID, no file capabilities."""

    def describe(self) -> str:
        """Return one line."""
        return "prctl PR_SET_NO_NEW_PRIVS"

    def execute(self, context: object, /) -> None:
        """Set it; there is no way back."""
        prctl.set_no_new_privs()

    def calls(self, context: object, /) -> list[Call]:
        """Return the one call."""
        return [calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1)]


class DropBounding(Operation[object], frozen=True):
    """Empty the bounding set but for ``keep``: by number up to ``last``, the kernel's, for it may know more than we."""

    keep: frozenset[int]
    last: int

    def describe(self) -> str:
        """Return one line."""
        kept = _names(self.keep) or "none"
        return f"prctl PR_CAPBSET_DROP all but {kept}"

    def execute(self, context: object, /) -> None:
        """Drop each. Raises OSError: EPERM, no CAP_SETPCAP."""
        for number in range(self.last + 1):
            if number not in self.keep:
                prctl.capbset_drop(number)

    def calls(self, context: object, /) -> list[Call]:
        """Return a call for each."""
        dropped = [number for number in range(self.last + 1) if number not in self.keep]
        return [calls.prctl(calls.PR_CAPBSET_DROP, number) for number in dropped]


class SetCredentials(Operation[Warns], frozen=True):
    """Become the user, with exactly these capabilities (by number), as far as this process can give them.

    ``until_execve`` are permitted and effective besides, for what comes before the execve, which takes them.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    effective: frozenset[int] = frozenset()
    permitted: frozenset[int] = frozenset()
    inheritable: frozenset[int] = frozenset()
    ambient: frozenset[int] = frozenset()
    until_execve: frozenset[int] = frozenset()

    def describe(self) -> str:
        """Return one line."""
        groups = f" groups {','.join(map(str, self.groups))}" if self.groups else ""
        held = _names(self.permitted) or "none"
        raised = f", ambient {_names(self.ambient)}" if self.ambient else ""
        kept = f", {_names(self.until_execve)} until execve" if self.until_execve else ""
        return f"setresuid {self.uid}, setresgid {self.gid}{groups}; capset {held}{kept}{raised}"

    def execute(self, context: Warns, /) -> None:
        """Change over; warn of what cannot be given, and go on without, as the OCI spec asks of runtimes."""
        sets = self._sets(context)
        prctl.set_keepcaps()
        journal.step("setgroups", os.setgroups, self.groups)
        journal.step("setresgid", os.setresgid, self.gid, self.gid, self.gid)
        journal.step("setresuid", os.setresuid, self.uid, self.uid, self.uid)
        capability.capset(*sets)
        prctl.ambient_clear()
        for number in sorted(self.ambient):
            self._raise(number, context)

    def _raise(self, number: int, context: Warns) -> None:
        try:
            prctl.ambient_raise(number)
        except PermissionError:
            context.warn(_not_ambient(number))

    def calls(self, context: Warns, /) -> list[Call]:
        """Return what changes over, from what this process has: its child has the same."""
        groups, sets = b"".join(gid.to_bytes(4, sys.byteorder) for gid in self.groups), self._sets(context)
        return [
            calls.prctl(calls.PR_SET_KEEPCAPS, 1),
            call("setgroups", len(self.groups), groups, shown=(self.groups,)),
            call("setresgid", self.gid, self.gid, self.gid),
            call("setresuid", self.uid, self.uid, self.uid),
            call("capset", *capability.in_memory(*sets), shown=sets),
            calls.prctl(prctl.PR_CAP_AMBIENT, prctl.PR_CAP_AMBIENT_CLEAR_ALL, 0),
            *(self._call_to_raise(number) for number in sorted(self.ambient)),
        ]

    def _call_to_raise(self, number: int) -> Call:
        what = (prctl.PR_CAP_AMBIENT, prctl.PR_CAP_AMBIENT_RAISE, number)
        return calls.prctl(*what, excused=calls.excusing(errno.EPERM), warn=lambda _: _not_ambient(number))

    def _sets(self, context: Warns) -> tuple[int, int, int]:
        """Return the effective, permitted and inheritable set that can be given."""
        held = capability.capget()[1]
        if missing := mask(self.permitted) & ~held:
            names = " ".join(names_in(missing))
            context.warn(f"cannot give {names}: minirt does not have it here (the container runs without)")
        effective, permitted = mask(self.effective | self.until_execve), mask(self.permitted | self.until_execve)
        return effective & held, permitted & held, mask(self.inheritable) & held


def _not_ambient(number: int) -> str:
    name = " ".join(names_in(1 << number))
    return f"cannot make {name} ambient: it would have to be permitted and inheritable, too"


def _names(numbers: frozenset[int]) -> str:
    if len(numbers) >= len(NAMES):
        return "all"
    return " ".join(name.removeprefix("CAP_") for name in names_in(mask(numbers)))
