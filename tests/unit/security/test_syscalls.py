"""The default profile: what it says for whom, before it is compiled."""

import pytest

from minirt.security.conditional import Machine, here, resolve
from minirt.security.profile import Rule
from minirt.security.syscalls import BY_CAPABILITY, FREE, default_profile

PC = Machine("amd64", "SCMP_ARCH_X86_64", (6, 1))
MAINFRAME = Machine("s390x", "SCMP_ARCH_S390X", (6, 1))


def rules(*capabilities: str, machine: Machine = PC) -> list[Rule]:
    return list(resolve(default_profile(), capabilities, machine).syscalls)


def of(name: str, *capabilities: str, machine: Machine = PC) -> list[Rule]:
    return [rule for rule in rules(*capabilities, machine=machine) if name in rule.names]


def test_what_is_free_is_named_once() -> None:
    names = " ".join(FREE).split()
    assert len(names) == len(set(names)) > 350


@pytest.mark.parametrize(
    "name", ["mount", "unshare", "setns", "bpf", "keyctl", "add_key", "request_key", "userfaultfd", "io_uring_setup"]
)
def test_what_nobody_has_without_a_capability(name: str) -> None:
    assert of(name) == []


@pytest.mark.parametrize("capability", BY_CAPABILITY)
def test_a_capability_gives_its_calls(capability: str) -> None:
    for name in BY_CAPABILITY[capability].split():
        given = of(name, capability)
        assert any(rule.action == "SCMP_ACT_ALLOW" and not rule.args for rule in given), name


def test_clone_makes_no_namespaces_without_the_capability() -> None:
    (rule,) = of("clone")
    assert [(one.index, one.value, one.value_two, one.op) for one in rule.args] == [
        (0, 0x7E020000, 0, "SCMP_CMP_MASKED_EQ")
    ]
    (theirs,) = of("clone", machine=MAINFRAME)
    assert theirs.args[0].index == 1
    (free,) = of("clone", "CAP_SYS_ADMIN")
    assert free.args == ()


def test_clone3_is_said_not_to_be_there() -> None:
    assert [(rule.action, rule.errno_ret) for rule in of("clone3")] == [("SCMP_ACT_ERRNO", 38)]


def test_sockets_of_two_families_are_refused() -> None:
    allowed = [(one.op, one.value) for rule in of("socket") for one in rule.args]
    assert allowed == [("SCMP_CMP_LT", 38), ("SCMP_CMP_EQ", 39), ("SCMP_CMP_GT", 40)]


def test_it_is_for_machines_that_are_not_listed_too() -> None:
    assert resolve(default_profile(), (), Machine("loong64", "", (6, 1))).architectures == ()
    assert resolve(default_profile(), (), here()).syscalls
