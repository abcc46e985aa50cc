"""Seccomp: a profile becomes the program that the kernel runs before each system call of a container.

    linux.seccomp ─ digest ─▶ <state>/seccomp/<digest>.bpf ──── there ────▶ bytes ─ LoadFilter ─ rt_exec ─▶ seccomp(2)
                                      ▲                                       ▲
                                      └── absent, another boot's, damaged: libseccomp

libseccomp (through pyseccomp) compiles, and is imported for that only: a start with a profile that has been seen before
reads one small file. Another boot's file is not taken, for kernel and libseccomp may have changed with it. The digest
is a check sum, which only names the file: the profile itself is in it, and compared (hashlib takes 2 ms to import).

Source: seccomp(2), seccomp_rule_add(3), runtime-spec 1.2 config-linux.md "Seccomp", runc's libcontainer/seccomp
"""

import contextlib
import errno
import os
import zlib
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from minirt import paths
from minirt.errors import InvalidInput, Unsupported
from minirt.security.profile import NOTIFY, Argument, Flag, Rule, Seccomp

if TYPE_CHECKING:
    from collections.abc import Iterator

FLAGS: dict[Flag, int] = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
"""Source: linux/seccomp.h."""

TSYNC, NEW_LISTENER, WAIT_KILLABLE_RECV = 1, 8, 32

WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", NOTIFY)
"""Default actions under which an unknown system call reaches the kernel, or somebody who knows what to do."""

INSTRUCTION_BYTES = 8
MOST_INSTRUCTIONS = 4096
"""BPF_MAXINSNS. Source: linux/bpf_common.h."""

MOST_ERRNO = 4094
"""Of what libseccomp takes."""

FORMAT = 2
"""Counts up when the same profile is compiled to something else than before."""


class Filter(Struct, frozen=True):
    """A compiled profile: the program, and the flags that it is loaded with."""

    program: bytes
    flags: int

    @property
    def length(self) -> int:
        """Return the number of its instructions."""
        return len(self.program) // INSTRUCTION_BYTES


_compiled: dict[bytes, Filter] = {}


def filter_of(profile: Seccomp | None) -> Filter | None:
    """Return a profile's filter (None for none): of this process's memory, else of the cache, else compiled.

    Raises:
        InvalidInput: the profile makes no sense to libseccomp; its field is named.
        Unsupported: libseccomp is not installed, or the filter would be longer than the kernel takes.
    """
    if profile is None:
        return None
    content = msgspec.json.encode(profile)
    if content not in _compiled:
        where = path_of(content)
        program = _read(where, content)
        if program is None:
            program = compile_profile(profile)
            _write(where, content, program)
        _compiled[content] = Filter(program, flags_of(profile))
    return _compiled[content]


def preview_of(profile: Seccomp | None) -> Filter | None:
    """Return the same, and write nothing."""
    return Filter(compile_profile(profile), flags_of(profile)) if profile else None


def path_of(content: bytes) -> str:
    """Return where the filter of a profile, given as JSON, is kept."""
    return f"{paths.filters_dir()}/{zlib.crc32(content):08x}-{len(content)}.bpf"


def flags_of(profile: Seccomp) -> int:
    """Return the flags to load a profile with: runc's where it names none, which leaves speculation as it is.

    With a listener the kernel takes no TSYNC (both would be what seccomp(2) returns), and there is one thread only.

    Raises:
        InvalidInput: the profile is to ask somebody, and does not say whom; or has a flag that is about asking.
    """
    flags = ("SECCOMP_FILTER_FLAG_SPEC_ALLOW",) if profile.flags is None else profile.flags
    bits = sum(FLAGS[flag] for flag in set(flags))
    if not profile.notifies:
        if bits & WAIT_KILLABLE_RECV:
            why = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is for SCMP_ACT_NOTIFY, and no rule has that action"
            raise InvalidInput("use linux.seccomp.flags", why, "leave it out")
        return bits
    if not profile.listener_path:
        why = "it is empty, and an action is SCMP_ACT_NOTIFY"
        raise InvalidInput("use linux.seccomp.listenerPath", why, "name the socket of who is to be asked")
    return bits & ~TSYNC | NEW_LISTENER


# --- the cache: a line with boot, format and check sum; the profile's line; the program


def _read(path: str, content: bytes) -> bytes | None:
    """Return a kept program, if it is whole, of this boot, and this profile's."""
    try:
        with open(path, "rb") as file:
            head, _, body = file.read().partition(b"\n")
    except OSError:
        return None
    found, _, program = body.partition(b"\n")
    return program if program and found == content and head == _head(body) else None


def _write(path: str, content: bytes, program: bytes) -> None:
    """Keep a program; where that fails (a full disk), the next start compiles it again.

    Two who write the same one at once do no harm: whoever reads it sees whether it is whole.
    """
    temporary = f"{path}.new"
    body = content + b"\n" + program
    with contextlib.suppress(OSError):
        os.makedirs(paths.filters_dir(), mode=0o700, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(_head(body) + b"\n" + body)
            os.rename(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise


def _head(body: bytes) -> bytes:
    return f"{paths.boot_id()} {FORMAT} {zlib.crc32(body):08x}".encode()


# --- libseccomp


def compile_profile(profile: Seccomp) -> bytes:
    """Return a profile's program. A system call that libseccomp does not know is left to the prologue, as in runc.

    Raises:
        InvalidInput, Unsupported: as ``filter_of``.
    """
    library = _library()
    default = _action(library, profile.default_action, profile.default_errno_ret, "default", "linux.seccomp")
    made = library.SyscallFilter(default)
    architectures = _add_architectures(library, made, profile)
    for index, rule in enumerate(profile.syscalls):
        _add_rule(library, made, rule, default, f"linux.seccomp.syscalls[{index}]")
    program = _prologue(library, profile, architectures) + _exported(library, made)
    if len(program) // INSTRUCTION_BYTES > MOST_INSTRUCTIONS:
        why = f"it has {len(program) // INSTRUCTION_BYTES} instructions, and the kernel takes {MOST_INSTRUCTIONS}"
        raise Unsupported("use the seccomp profile", why, "name fewer system calls or architectures")
    return program


def _library() -> Any:
    try:
        import pyseccomp
    except RuntimeError as error:
        raise Unsupported("compile a seccomp profile", "libseccomp is missing", "apt install libseccomp2") from error
    return pyseccomp


def _action(library: Any, action: str, number: int | None, prefix: str, where: str) -> int:
    """Return an action as libseccomp's number, with its errno (EPERM if none is given)."""
    name = action.removeprefix("SCMP_ACT_")
    if action in WITH_ERRNO:
        value = errno.EPERM if number is None else number
        most = MOST_ERRNO if action == "SCMP_ACT_ERRNO" else 0xFFFF
        if not 0 <= value <= most:
            raise InvalidInput(f"use {where}", f"the errno {value} is not within 0 to {most}", "EPERM is 1")
        return int(getattr(library, name)(value))
    if number is not None:
        field = "defaultErrnoRet" if prefix else "errnoRet"
        raise InvalidInput(f"use {where}.{field}", f"{action} returns no errno", "leave it out")
    return int(getattr(library, name))


def _add_architectures(library: Any, made: Any, profile: Seccomp) -> list[int]:
    """Name the architectures to the filter, which has the native one in any case; return libseccomp's tokens."""
    native: int = library.system_arch()
    tokens = [_architecture(library, name, index) for index, name in enumerate(profile.architectures)]
    for index, token in enumerate(tokens):
        if token != native and token not in tokens[:index]:
            try:
                made.add_arch(token)
            except OSError as error:
                where = f"linux.seccomp.architectures[{index}]"
                raise InvalidInput(f"use {where}", f"it does not go with this machine's: {error.strerror}") from error
    return tokens or [native]


def _architecture(library: Any, name: str, index: int) -> int:
    token = getattr(library.Arch, name.removeprefix("SCMP_ARCH_"), None)
    if token is None or not name.startswith("SCMP_ARCH_"):
        where = f"linux.seccomp.architectures[{index}]"
        raise InvalidInput(f"use {where}", f"libseccomp has no architecture {name!r}", "for example SCMP_ARCH_X86_64")
    return int(token)


def _add_rule(library: Any, made: Any, rule: Rule, default: int, where: str) -> None:
    """Add a rule; one that says what the default says already is nothing to libseccomp."""
    if not rule.names:
        raise InvalidInput(f"use {where}.names", "it is empty", "name a system call")
    action = _action(library, rule.action, rule.errno_ret, "", where)
    if action == default:
        return
    conditions = [_condition(library, one, f"{where}.args[{index}]") for index, one in enumerate(rule.args)]
    for name in rule.names:
        number = library.resolve_syscall(library.Arch.NATIVE, name)
        if number != NOT_KNOWN:
            for together in _alternatives(rule.args, conditions):
                try:
                    made.add_rule(action, number, *together)
                except OSError as error:
                    raise InvalidInput(f"use {where}", f"libseccomp refuses {name}: {error.strerror}") from error


NOT_KNOWN = -1
"""libseccomp's number for a name that it does not know (__NR_SCMP_ERROR)."""


def _alternatives(args: tuple[Argument, ...], conditions: list[Any]) -> "Iterator[list[Any]]":
    """Yield conditions that must hold together: all, or where two are on one argument, each alone. As runc has it."""
    if len({one.index for one in args}) < len(args):
        yield from ([condition] for condition in conditions)
    else:
        yield conditions


def _condition(library: Any, argument: Argument, where: str) -> Any:
    if not 0 <= argument.index <= 5:
        raise InvalidInput(f"use {where}.index", f"{argument.index} is not within 0 to 5")
    for name, value in (("value", argument.value), ("valueTwo", argument.value_two)):
        if not 0 <= value < 1 << 64:
            raise InvalidInput(f"use {where}.{name}", f"{value} is not a number of 64 bits")
    operator = getattr(library, argument.op.removeprefix("SCMP_CMP_"))
    return library.Arg(argument.index, operator, argument.value, argument.value_two)


def _prologue(library: Any, profile: Seccomp, architectures: list[int]) -> bytes:
    """Return what answers ENOSYS to numbers beyond those that the profile names; nothing where that is its default."""
    from minirt.security import unknown

    answers_so = profile.default_action == "SCMP_ACT_ERRNO" and profile.default_errno_ret == errno.ENOSYS
    if answers_so or profile.default_action in PERMISSIVE:
        return b""
    names = {name for rule in profile.syscalls for name in rule.names}
    last = {token: max(_numbers(library, token, names), default=-1) for token in architectures}
    known = {token: highest for token, highest in last.items() if highest >= 0}
    return unknown.prologue(known, library.Arch.X86_64, library.Arch.X32)


def _numbers(library: Any, architecture: int, names: set[str]) -> "Iterator[int]":
    return (library.resolve_syscall(architecture, name) for name in names)


BINARY_TREE = 2
"""How libseccomp lays its tests out, instead of one after another. Source: seccomp_attr_set(3), CTL_OPTIMIZE."""


def _exported(library: Any, made: Any) -> bytes:
    """Return a filter's instructions, laid out so that a call's answer is a few steps away.

    That counts most when it is loaded, for the kernel then works out the answers to all calls: half of 0.8 ms.
    """
    made.set_attr(library.Attr.CTL_OPTIMIZE, BINARY_TREE)
    with open(os.memfd_create("bpf", os.MFD_CLOEXEC), "r+b", buffering=0) as file:
        made.export_bpf(file)
        file.seek(0)
        return file.readall()
