"""Profiles in docker's format: what is wrong is named, and what holds where is decided without a kernel."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from minirt.errors import InvalidInput
from minirt.security.conditional import Machine, load, parse, resolve
from minirt.security.profile import Seccomp

PC = Machine("amd64", "SCMP_ARCH_X86_64", (6, 1))
ARM = Machine("arm64", "SCMP_ARCH_AARCH64", (4, 7))


def profile(*rules: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules, **fields}).encode()


def allow(call: str, /, **fields: Any) -> dict[str, Any]:
    return {"names": [call], "action": "SCMP_ACT_ALLOW", **fields}


CONDITIONS = profile(
    allow("always"),
    allow("admin", includes={"caps": ["CAP_SYS_ADMIN"]}),
    allow("both", includes={"caps": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}),
    allow("no_admin", excludes={"caps": ["CAP_SYS_ADMIN", "CAP_KILL"]}),
    allow("pc", includes={"arches": ["amd64", "x32"]}),
    allow("no_pc", excludes={"arches": ["amd64"]}),
    allow("new", includes={"minKernel": "4.8"}),
    allow("old", excludes={"minKernel": "4.8"}),
)


@pytest.mark.parametrize(
    ("capabilities", "machine", "names"),
    [
        ((), PC, ["always", "no_admin", "pc", "new"]),
        (("CAP_SYS_ADMIN",), PC, ["always", "admin", "pc", "new"]),
        (("CAP_SYS_ADMIN", "CAP_CHOWN"), PC, ["always", "admin", "both", "pc", "new"]),
        (("CAP_KILL",), PC, ["always", "pc", "new"]),
        ((), ARM, ["always", "no_admin", "no_pc", "old"]),
    ],
)
def test_which_rules_hold(capabilities: tuple[str, ...], machine: Machine, names: list[str]) -> None:
    found = resolve(parse(CONDITIONS), capabilities, machine)
    assert [name for rule in found.syscalls for name in rule.names] == names


MAP = [
    {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
    {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": None},
]


@pytest.mark.parametrize(
    ("fields", "machine", "architectures"),
    [
        ({"archMap": MAP}, PC, ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86")),
        ({"archMap": MAP}, ARM, ()),
        ({"archMap": MAP}, Machine("riscv64", "SCMP_ARCH_RISCV64", (6, 1)), ("SCMP_ARCH_RISCV64",)),
        ({"architectures": ["SCMP_ARCH_X86"]}, PC, ("SCMP_ARCH_X86",)),
        ({}, PC, ()),
    ],
)
def test_which_architectures_there_are(fields: Any, machine: Machine, architectures: tuple[str, ...]) -> None:
    assert resolve(parse(profile(**fields)), (), machine).architectures == architectures


def test_what_is_resolved_is_the_ocis() -> None:
    rule = allow("kill", args=[{"index": 1, "value": 9, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}], comment="why")
    old = {"name": "mkdir", "action": "SCMP_ACT_ERRNO", "errnoRet": 2, "args": None}
    found = resolve(parse(profile(rule, old, flags=["SECCOMP_FILTER_FLAG_LOG"], defaultErrnoRet=5)), (), PC)
    again = msgspec.json.decode(msgspec.json.encode(found), type=Seccomp)
    assert again == found
    assert json.loads(msgspec.json.encode(found)) == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 5,
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {
                "names": ["kill"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 1, "value": 9, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": 3}],
            },
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2},
        ],
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "truncated"),
        (b"{}", "defaultAction"),
        (profile(defaultAction="SCMP_ACT_NOTIFY"), "SCMP_ACT_NOTIFY"),
        (profile(listenerPath="/x"), "listenerPath"),
        (profile(allow("a", action="x")), "$.syscalls[0].action"),
        (profile(allow("a", args=[{"index": 0, "value": 0, "op": "EQ"}])), "$.syscalls[0].args[0].op"),
        (profile(allow("a", name="b")), "$.syscalls[0]"),
        (profile({"action": "SCMP_ACT_ALLOW"}), "exactly one of name and names"),
        (profile(allow("a"), allow("b", includes={"minKernel": "new"})), "$.syscalls[1].includes.minKernel"),
        (profile(archMap=MAP, architectures=["SCMP_ARCH_X86"]), "architectures and archMap"),
        (profile(flags=["NEW_LISTENER"]), "$.flags[0]"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as error:
        load(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match="/no/such"):
        load(Path("/no/such"))
