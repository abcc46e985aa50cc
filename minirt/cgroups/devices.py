"""The devices of a cgroup: rules compiled to an eBPF program, which the kernel asks at every open and every mknod.

cgroup v2 has no file for this. The program is given the device and what is wanted of it, and says 1 or 0:

    r2 = type (block 1, char 2)   r3 = what is wanted (mknod 1, read 2, write 4)
    r4 = major   r5 = minor   r6 = major << 20 | minor, for a rule that names both

Rules are an ordered list and the last one that fits decides, for each of r, w and m by itself; what none fits is
denied. So the program asks from the last rule back, and ticks off in r3 what a rule has allowed already:

    deny c 1:* w      if r2 != 2 or r4 != 1 goto next; if !(r3 & 4) goto next; return 0
    allow c 1:3 rw    if r2 != 2 or r6 != 0x100003 goto next; r3 &= ~(2|4); if r3 != 0 goto next; return 1
    deny a *:* rwm    return 0

One number to compare, and not two, is for the verifier, which follows both ways of every jump: where the major fits and
the minor does not it would go on with a known major, and take a time that grows with the square of the rules.

cgroup v1 had a list of exceptions instead, which runc still keeps in front of its program, refusing what v1 could not
say ("allow c 1:*" and then "deny c 1:3"). crun asks rule by rule as here, and looks only at those that name all of what
is wanted: there "deny w" after "allow rw" does not stop an open for both. Whoever uses none of this sees no difference.

Source: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#allowed-device-list,
https://docs.kernel.org/admin-guide/cgroup-v2.html#device-controller, and the kernel's include/uapi/linux/bpf.h.
"""

import errno
import functools
import os
import struct
import sys

from minirt.cgroups.resources import DeviceRule
from minirt.errors import InvalidInput, StepFailed
from minirt.linux import bpf, fds
from minirt.linux.operation import Operation

Rules = tuple[DeviceRule, ...]

TYPES = {"b": 1, "c": 2}
ACCESS = {"m": 1, "r": 2, "w": 4}
EVERYTHING = 7
MINOR_BITS, MAJOR_BITS = 20, 12
"""Of the kernel's own device numbers. Source: include/linux/kdev_t.h, MINORBITS."""

ALLOW_ALL = DeviceRule(True, access="rwm")
DENY_ALL = DeviceRule(False, access="rwm")

ALWAYS: Rules = (
    DeviceRule(True, "c", access="m"),
    DeviceRule(True, "b", access="m"),
    *(DeviceRule(True, "c", 1, minor, "rwm") for minor in (3, 8, 7, 5, 9)),
    *(DeviceRule(True, "c", 5, minor, "rwm") for minor in (0, 1, 2)),
    DeviceRule(True, "c", 136, access="rwm"),
)
"""What no rules take away, as in runc and crun: to make nodes (overlay's whiteouts are some; opening is what counts),
null, random, full, zero, urandom, tty, console, ptmx and the terminals of /dev/pts."""

REMEDIES = {
    errno.EPERM: "it takes CAP_BPF or CAP_SYS_ADMIN, in no user namespace; before Linux 5.11: ulimit -l unlimited",
    errno.EINVAL: "boot a kernel with CONFIG_CGROUP_BPF, or run it with --privileged, which filters nothing",
    errno.E2BIG: "the verifier gave up: give fewer rules, or wider ones",
    errno.ENOSYS: "boot a kernel with CONFIG_BPF_SYSCALL, or run it with --privileged, which filters nothing",
}

LOAD_WORD, MOVE, COPY, AND, OR, SHIFT_LEFT, SHIFT_RIGHT = 0x61, 0xB7, 0xBF, 0x54, 0x4C, 0x64, 0x74
GOTO, UNLESS_EQUAL, IF_ANY, EXIT = 0x05, 0x56, 0x45, 0x95
"""The operations used: ldxw; mov64 of a number, of a register; and32 and shifts with a number, or32 with a register;
ja, jne32 and jset with a number; exit."""


class AttachDeviceFilter(Operation[object], frozen=True):
    """Let the processes of a cgroup use only the devices that ``rules`` allow."""

    path: str
    rules: Rules
    cause: str = ""

    @property
    def because(self) -> str:
        """Return the field that asked for it."""
        return self.cause

    def describe(self) -> str:
        """Return one line: the rules in order."""
        return f"bpf attach a device filter to {self.path}: {'; '.join(map(words, self.rules))}"

    def execute(self, context: object, /) -> None:
        """Load the program and attach it. Raises StepFailed: the kernel refused; the verifier's log is in the words."""
        try:
            with (
                fds.closing(bpf.prog_load(compile_rules(self.rules))) as program,
                fds.closing(os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as cgroup,
            ):
                bpf.prog_attach(cgroup, program)
        except OSError as error:
            do = REMEDIES.get(error.errno or 0, "")
            raise StepFailed.from_os_error(self.describe(), error, do=do, step="AttachDeviceFilter") from error


def plan_devices(cgroup: str, rules: Rules, cause: str = "") -> list[AttachDeviceFilter]:
    """Return what keeps a cgroup to the devices of ``rules``; nothing, where there are none or all is allowed.

    Raises:
        InvalidInput: a rule makes no sense.
    """
    for rule in rules:
        _check(rule)
    return [AttachDeviceFilter(cgroup, _complete(rules), cause)] if is_filter(rules) else []


def is_filter(rules: Rules) -> bool:
    """Say whether rules keep anybody from anything: there are some, and what decides last does not allow all."""
    for rule in reversed(_complete(rules)):
        if not rule.allow or _is_total(rule):
            return bool(rules) and not rule.allow
    return bool(rules)


def _complete(rules: Rules) -> Rules:
    """Return rules with what is always allowed behind them, each once, in its last place."""
    return tuple(reversed(dict.fromkeys(reversed((*rules, *ALWAYS)))))


def words(rule: DeviceRule) -> str:
    """Return a rule as cgroup v1's files had it, and docker's --device-cgroup-rule has: ``allow c 1:3 rwm``."""
    major, minor = ("*" if number is None else number for number in map(_number, (rule.major, rule.minor)))
    return f"{'allow' if rule.allow else 'deny'} {rule.type} {major}:{minor} {rule.access}"


def _number(number: int | None) -> int | None:
    return None if number == -1 else number


def _check(rule: DeviceRule) -> None:
    what = f"use the device rule '{words(rule)}'"
    if not rule.access or set(rule.access) - set(ACCESS):
        raise InvalidInput(what, f"its access is {rule.access!r}", "it is one or more of r, w and m")
    for number, bits in ((rule.major, MAJOR_BITS), (rule.minor, MINOR_BITS)):
        if number is not None and not -1 <= number < 1 << bits:
            raise InvalidInput(what, f"no device has the number {number}", "-1, or none, is any")


@functools.lru_cache
def compile_rules(rules: Rules) -> bytes:
    """Return the program: instructions of 8 bytes. Pure; and kept, for the containers of a shim have the same rules."""
    program = [
        _instruction(LOAD_WORD, 2, 1),
        _instruction(COPY, 3, 2),
        _instruction(AND, 2, number=0xFFFF),
        _instruction(SHIFT_RIGHT, 3, number=16),
        _instruction(LOAD_WORD, 4, 1, offset=4),
        _instruction(LOAD_WORD, 5, 1, offset=8),
        _instruction(COPY, 6, 4),
        _instruction(SHIFT_LEFT, 6, number=MINOR_BITS),
        _instruction(OR, 6, 5),
    ]
    for rule in reversed(rules):
        program += _block(rule)
        if _is_total(rule):
            break  # nothing behind it can be reached, and the verifier refuses what cannot
    else:
        program += _return(False)
    return b"".join(program)


def _block(rule: DeviceRule) -> list[bytes]:
    """Return one rule: what is to be equal, each a jump over what is left of the block; then its verdict."""
    verdict = _verdict(rule)
    tests = [(2, TYPES[rule.type])] if rule.type in TYPES else []
    tests += _numbers(_number(rule.major), _number(rule.minor))
    length = len(tests) + len(verdict)
    jumps = [_instruction(UNLESS_EQUAL, reg, number=n, offset=length - 1 - at) for at, (reg, n) in enumerate(tests)]
    return jumps + verdict


def _numbers(major: int | None, minor: int | None) -> list[tuple[int, int]]:
    """Return (register, number) of what is to be equal."""
    if major is not None and minor is not None:
        return [(6, major << MINOR_BITS | minor)]
    return [(register, number) for register, number in ((4, major), (5, minor)) if number is not None]


def _verdict(rule: DeviceRule) -> list[bytes]:
    mask = _mask(rule.access)
    if mask == EVERYTHING:
        return _return(rule.allow)
    if rule.allow:
        ticked = _instruction(AND, 3, number=EVERYTHING & ~mask)
        return [ticked, _instruction(UNLESS_EQUAL, 3, number=0, offset=2), *_return(True)]
    return [_instruction(IF_ANY, 3, number=mask, offset=1), _instruction(GOTO, offset=2), *_return(False)]


def _return(allow: bool) -> list[bytes]:
    return [_instruction(MOVE, 0, number=int(allow)), _instruction(EXIT)]


def _is_total(rule: DeviceRule) -> bool:
    return rule.type == "a" and _number(rule.major) is _number(rule.minor) is None and _mask(rule.access) == EVERYTHING


def _mask(access: str) -> int:
    return sum(ACCESS[letter] for letter in set(access))


def _instruction(code: int, to: int = 0, source: int = 0, *, offset: int = 0, number: int = 0) -> bytes:
    """Return one ``struct bpf_insn``: its two registers share a byte, in an order that is the machine's."""
    registers = to | source << 4 if sys.byteorder == "little" else to << 4 | source
    return struct.pack("=BBhI", code, registers, offset, number)
