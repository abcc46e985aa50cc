"""A profile compiled by libseccomp, and the program's verdicts, told by a small reader of its instructions."""

import errno
import struct
from pathlib import Path
from typing import Any

import msgspec
import pyseccomp
import pytest

from minirt.errors import InvalidInput
from minirt.security import seccomp
from minirt.security.conditional import here, resolve
from minirt.security.profile import Argument, Rule, Seccomp
from minirt.security.seccomp import compile_profile, filter_of, flags_of, path_of
from minirt.security.syscalls import default_profile

ALLOW, KILL = 0x7FFF0000, 0


def answer(number: int) -> int:
    """Return the kernel's word for an errno."""
    return 0x00050000 | number


def verdict(program: bytes, number: int, *args: int, architecture: int | None = None) -> int:
    """Return what a program says to a system call. It knows the instructions that libseccomp writes."""
    token = pyseccomp.system_arch() if architecture is None else architecture
    data = struct.pack("=IIQ6Q", number, token, 0, *(*args, *[0] * (6 - len(args))))
    code = list(struct.iter_unpack("=HBBI", program))
    at = value = 0
    while True:
        kind, if_true, if_false, operand = code[at]
        at += 1
        if kind == 0x06:
            return int(operand)
        if kind == 0x20:
            value = struct.unpack_from("=I", data, operand)[0]
        elif kind == 0x54:
            value &= operand
        elif kind == 0x05:
            at += operand
        else:
            holds = {0x15: value == operand, 0x25: value > operand, 0x35: value >= operand}[kind]
            at += if_true if holds else if_false


def number_of(name: str) -> int:
    return int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name))


def listed(*rules: Rule, **fields: Any) -> bytes:
    return compile_profile(Seccomp("SCMP_ACT_ERRNO", syscalls=rules, **fields))


def allow(*names: str, args: tuple[Argument, ...] = ()) -> Rule:
    return Rule(names, "SCMP_ACT_ALLOW", args=args)


def test_what_is_listed_is_allowed_and_nothing_else() -> None:
    program = listed(allow("getpid", "read", "clone3"))
    assert verdict(program, number_of("getpid")) == ALLOW
    assert verdict(program, number_of("mkdir")) == answer(errno.EPERM)


def test_what_is_newer_than_the_profile_is_not_there() -> None:
    program = listed(allow("getpid"))
    assert verdict(program, number_of("getpid") + 1) == answer(errno.ENOSYS)
    assert verdict(program, number_of("getpid") - 1) == answer(errno.EPERM)
    assert verdict(listed(allow("getpid"), default_errno_ret=errno.ENOSYS), 5000) == answer(errno.ENOSYS)
    assert verdict(compile_profile(Seccomp("SCMP_ACT_LOG")), 5000) == 0x7FFC0000


def test_another_architecture_is_killed() -> None:
    assert verdict(listed(allow("getpid")), 1, architecture=1) == KILL


@pytest.mark.skipif(here().arch != "amd64", reason="three ABIs are x86_64's")
def test_each_abi_has_its_own_last_number() -> None:
    program = listed(allow("getpid", "preadv2"), architectures=("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"))
    i386, x32 = pyseccomp.Arch.X86, 0x40000000
    last_of_i386 = pyseccomp.resolve_syscall(i386, "preadv2")
    last_of_x32 = pyseccomp.resolve_syscall(pyseccomp.Arch.X32, "preadv2")
    assert last_of_x32 & x32
    assert verdict(program, last_of_i386, architecture=i386) == ALLOW
    assert verdict(program, last_of_i386 + 1, architecture=i386) == answer(errno.ENOSYS)
    assert verdict(program, last_of_x32) == ALLOW
    assert verdict(program, last_of_x32 - 1) == answer(errno.EPERM)
    assert verdict(program, last_of_x32 + 1) == answer(errno.ENOSYS)
    assert verdict(program, number_of("preadv2") + 1) == answer(errno.ENOSYS)


@pytest.mark.parametrize(
    ("op", "value", "two", "yes", "no"),
    [
        ("SCMP_CMP_NE", 5, 0, 6, 5),
        ("SCMP_CMP_LT", 5, 0, 4, 5),
        ("SCMP_CMP_LE", 5, 0, 5, 6),
        ("SCMP_CMP_EQ", 1 << 40, 0, 1 << 40, 0),
        ("SCMP_CMP_GE", 5, 0, 5, 4),
        ("SCMP_CMP_GT", 5, 0, 6, 5),
        ("SCMP_CMP_MASKED_EQ", 0xF0, 0x20, 0x2F, 0x3F),
    ],
)
def test_conditions(op: Any, value: int, two: int, yes: int, no: int) -> None:
    program = listed(allow("lseek", args=(Argument(1, value, op, two),)), allow("clone3"))
    assert verdict(program, number_of("lseek"), 0, yes) == ALLOW
    assert verdict(program, number_of("lseek"), 0, no) == answer(errno.EPERM)


def test_conditions_on_different_arguments_hold_together_and_on_the_same_one_each() -> None:
    one, two = Argument(0, 1, "SCMP_CMP_EQ"), Argument(1, 2, "SCMP_CMP_EQ")
    program = listed(allow("lseek", args=(one, two)), allow("clone3"))
    assert verdict(program, number_of("lseek"), 1, 2) == ALLOW
    assert verdict(program, number_of("lseek"), 1, 3) == answer(errno.EPERM)
    either = listed(allow("lseek", args=(one, Argument(0, 7, "SCMP_CMP_EQ"))), allow("clone3"))
    assert [verdict(either, number_of("lseek"), first) == ALLOW for first in (1, 7, 2)] == [True, True, False]


@pytest.mark.parametrize(
    ("action", "number", "result"),
    [
        ("SCMP_ACT_ERRNO", None, answer(errno.EPERM)),
        ("SCMP_ACT_ERRNO", 99, answer(99)),
        ("SCMP_ACT_TRACE", 7, 0x7FF00007),
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, 0x80000000),
        ("SCMP_ACT_TRAP", None, 0x00030000),
        ("SCMP_ACT_LOG", None, 0x7FFC0000),
    ],
)
def test_actions(action: Any, number: int | None, result: int) -> None:
    program = compile_profile(Seccomp("SCMP_ACT_ALLOW", syscalls=(Rule(("kill",), action, number),)))
    assert verdict(program, number_of("kill")) == result
    assert verdict(program, number_of("getpid")) == ALLOW


def asking(**fields: Any) -> Seccomp:
    return Seccomp("SCMP_ACT_ALLOW", syscalls=(Rule(("mkdir",), "SCMP_ACT_NOTIFY"),), **fields)


def test_who_is_asked() -> None:
    program = compile_profile(asking(listener_path="/x"))
    assert verdict(program, number_of("mkdir")) == 0x7FC00000
    assert verdict(program, number_of("getpid")) == ALLOW
    unknown = compile_profile(Seccomp("SCMP_ACT_NOTIFY", listener_path="/x"))
    assert verdict(unknown, 5000) == 0x7FC00000, "what is unknown is theirs to decide as well"


def test_a_listener_is_a_flag() -> None:
    """With which the kernel takes no TSYNC; there is one thread only."""
    assert flags_of(asking(listener_path="/x")) == 4 | 8
    assert flags_of(asking(listener_path="/x", flags=("SECCOMP_FILTER_FLAG_TSYNC",))) == 8
    assert flags_of(Seccomp("SCMP_ACT_ALLOW", listener_path="/x")) == 4, "nobody is asked"


@pytest.mark.parametrize(
    ("profile", "field"),
    [
        (asking(), "linux.seccomp.listenerPath"),
        (Seccomp("SCMP_ACT_ALLOW", flags=("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",)), "linux.seccomp.flags"),
    ],
)
def test_a_listener_without_questions_and_the_other_way_round(profile: Seccomp, field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        flags_of(profile)


def test_a_name_that_libseccomp_does_not_know_is_passed_over() -> None:
    assert listed(allow("getpid", "no_such_call")) == listed(allow("getpid"))


REFUSED = [
    (Seccomp("SCMP_ACT_ALLOW", 5), "linux.seccomp.defaultErrnoRet"),
    (Seccomp("SCMP_ACT_ERRNO", 70000), "70000"),
    (Seccomp("SCMP_ACT_ERRNO", architectures=("SCMP_ARCH_X",)), "linux.seccomp.architectures[0]"),
    (Seccomp("SCMP_ACT_ERRNO", architectures=("SCMP_ARCH_S390X",)), "linux.seccomp.architectures[0]"),
    (Seccomp("SCMP_ACT_ERRNO", syscalls=(allow(),)), "linux.seccomp.syscalls[0].names"),
    (
        Seccomp("SCMP_ACT_ERRNO", syscalls=(allow("a"), Rule(("kill",), "SCMP_ACT_ALLOW", 5))),
        "linux.seccomp.syscalls[1].errnoRet",
    ),
    (
        Seccomp("SCMP_ACT_ERRNO", syscalls=(allow("kill", args=(Argument(6, 0, "SCMP_CMP_EQ"),)),)),
        "linux.seccomp.syscalls[0].args[0].index",
    ),
    (
        Seccomp("SCMP_ACT_ERRNO", syscalls=(allow("kill", args=(Argument(0, -1, "SCMP_CMP_EQ"),)),)),
        "linux.seccomp.syscalls[0].args[0].value",
    ),
]


@pytest.mark.parametrize(("profile", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_makes_no_sense_is_named(profile: Seccomp, said: str) -> None:
    with pytest.raises(InvalidInput) as error:
        compile_profile(profile)
    assert said in str(error.value)


def test_flags() -> None:
    assert flags_of(Seccomp("SCMP_ACT_ALLOW")) == 4
    assert flags_of(Seccomp("SCMP_ACT_ALLOW", flags=())) == 0
    both: Any = ("SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG")
    assert flags_of(Seccomp("SCMP_ACT_ALLOW", flags=both)) == 3


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of compiled profiles, and a process that remembers none."""
    monkeypatch.setenv("MINIRT_STATE", str(tmp_path))
    monkeypatch.setattr(seccomp, "_compiled", {})
    return tmp_path / "seccomp"


PROFILE = Seccomp("SCMP_ACT_ALLOW", syscalls=(Rule(("mkdir",), "SCMP_ACT_ERRNO"),))


def test_a_filter_is_kept_with_its_profile(kept: Path) -> None:
    found = filter_of(PROFILE)
    assert found is not None
    assert found.program == compile_profile(PROFILE)
    (file,) = kept.iterdir()
    assert str(file) == path_of(msgspec.json.encode(PROFILE))
    assert file.read_bytes().endswith(b"\n" + msgspec.json.encode(PROFILE) + b"\n" + found.program)
    assert kept.stat().st_mode & 0o777 == 0o700
    assert filter_of(PROFILE) is found
    assert filter_of(None) is None


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + bytes(8), lambda data: b"0 0\n" + data])
def test_a_damaged_one_is_compiled_again(kept: Path, monkeypatch: pytest.MonkeyPatch, damage: Any) -> None:
    found = filter_of(PROFILE)
    (file,) = kept.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    monkeypatch.setattr(seccomp, "_compiled", {})
    assert filter_of(PROFILE) == found
    assert file.read_bytes() == whole


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(kept: Path) -> None:
    kept.write_text("in the way")
    found = filter_of(PROFILE)
    assert found is not None
    assert found.length > 3


def test_another_profiles_filter_is_not_taken(kept: Path) -> None:
    other = Seccomp("SCMP_ACT_ALLOW", syscalls=(Rule(("rmdir",), "SCMP_ACT_ERRNO"),))
    found = filter_of(other)
    Path(path_of(msgspec.json.encode(other))).rename(path_of(msgspec.json.encode(PROFILE)))
    again = filter_of(PROFILE)
    assert again is not None
    assert again != found
    assert again.program == compile_profile(PROFILE)


@pytest.mark.skipif(here().arch != "amd64", reason="numbers of x86_64")
def test_the_default_profile_compiles_to_what_it_says() -> None:
    program = compile_profile(resolve(default_profile(), ("CAP_SYS_CHROOT",), here()))
    said = {name: verdict(program, number_of(name)) for name in ("read", "chroot", "mount", "keyctl", "clone3")}
    assert said == {
        "read": ALLOW,
        "chroot": ALLOW,
        "mount": answer(errno.EPERM),
        "keyctl": answer(errno.EPERM),
        "clone3": answer(errno.ENOSYS),
    }
    assert [verdict(program, number_of("clone"), flags) == ALLOW for flags in (0x11, 0x10000000)] == [True, False]
