"""What init gives up, as the kernel shows it afterwards: /proc/self/status and limits of a program executed by it."""

import os
import resource
from collections.abc import Callable

import pytest

from minirt.linux import capability, operation, prctl
from minirt.linux.operation import Operation
from minirt.security.capabilities import (
    DEFAULT,
    NUMBERS,
    CapabilitySets,
    capability_sets,
    held_here,
    last_cap,
    mask,
    numbers,
)
from minirt.security.operations import DropBounding, NoNewPrivileges, SetCredentials, SetOomScoreAdj, SetRlimit

pytestmark = pytest.mark.root

SYS_RESOURCE = NUMBERS["CAP_SYS_RESOURCE"]
NONE = "0" * 16


class Context:
    """A context whose warnings are written where the program's output goes."""

    def warn(self, text: str, /) -> None:
        os.write(1, f"Warning:\t{text}\n".encode())


def executed(plan: list[Operation], *files: str, first: Callable[[], object] = lambda: None) -> dict[str, str]:
    """Run a plan in a child, execute ``cat`` on files, and return what it says, by the word before ":"."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            first()
            operation.run(plan, Context())
            os.execvp("cat", ["cat", *files])
        except BaseException as error:  # noqa: BLE001  a forked child must not go on as pytest
            os.write(1, f"Failed:\t{error}".encode())
        os._exit(1)
    os.close(writer)
    with open(reader) as said:
        lines = [line.partition(":") for line in said.read().splitlines()]
    os.waitpid(pid, 0)
    return {key: value.strip() for key, _, value in lines}


def plan_of(sets: CapabilitySets, uid: int, gid: int = 0, groups: tuple[int, ...] = ()) -> list[Operation]:
    four = [numbers(names) for names in (sets.effective, sets.permitted, sets.inheritable, sets.ambient)]
    return [DropBounding(numbers(sets.bounding), last_cap()), SetCredentials(uid, gid, groups, *four)]


def status(sets: CapabilitySets, uid: int, gid: int = 0, groups: tuple[int, ...] = ()) -> dict[str, str]:
    return executed(plan_of(sets, uid, gid, groups), "/proc/self/status")


def as_shown(*names: str) -> str:
    return f"{mask(numbers(names)):016x}"


def capabilities(found: dict[str, str]) -> list[str]:
    return [found[f"Cap{kind}"] for kind in ("Bnd", "Prm", "Eff", "Inh", "Amb")]


def test_root_has_the_fourteen_and_no_more() -> None:
    found = status(capability_sets([], [], held=held_here()), 0)
    fourteen = as_shown(*DEFAULT)
    assert capabilities(found) == [fourteen, fourteen, fourteen, NONE, NONE]


def test_another_user_has_them_only_as_a_bound() -> None:
    found = status(capability_sets([], [], held=held_here(), uid=1000), 1000, 100, (4, 20))
    assert capabilities(found) == [as_shown(*DEFAULT), NONE, NONE, NONE, NONE]
    assert found["Uid"].split() == ["1000"] * 4
    assert found["Gid"].split() == ["100"] * 4
    assert found["Groups"].split() == ["4", "20"]


def test_ambient_ones_outlast_the_change_of_user() -> None:
    sets = capability_sets([], ["ALL"], held=held_here(), uid=1000, ambient=["NET_BIND_SERVICE"])
    assert capabilities(status(sets, 1000)) == [as_shown("CAP_NET_BIND_SERVICE")] * 5


def test_nothing_at_all() -> None:
    found = status(capability_sets([], ["ALL"], held=held_here()), 0)
    assert capabilities(found) == [NONE] * 5
    assert found["Groups"] == ""


def test_privileged_is_what_we_hold() -> None:
    found = status(capability_sets([], [], held=held_here(), privileged=True), 0)
    held = as_shown(*held_here())
    assert capabilities(found) == [held, held, held, NONE, NONE]


def test_more_than_we_hold_is_a_warning_and_is_not_given() -> None:
    def without_kill() -> None:
        prctl.capbset_drop(NUMBERS["CAP_KILL"])
        left = mask(range(last_cap() + 1)) & capability.capget()[1] & ~mask(numbers(["CAP_KILL"]))
        capability.capset(left, left, 0)

    two = numbers(["CAP_KILL", "CAP_CHOWN"])
    plan = [DropBounding(two, last_cap()), SetCredentials(0, 0, (), two, two)]
    found = executed(plan, "/proc/self/status", first=without_kill)
    assert found["Warning"] == "cannot give CAP_KILL: minirt does not have it here (the container runs without)"
    assert found["CapPrm"] == found["CapEff"] == as_shown("CAP_CHOWN")


def test_ambient_ones_that_are_not_inheritable_are_a_warning() -> None:
    kill = numbers(["CAP_KILL"])
    plan = [DropBounding(kill, last_cap()), SetCredentials(0, 0, (), kill, kill, ambient=kill)]
    found = executed(plan, "/proc/self/status")
    assert found["Warning"].startswith("cannot make CAP_KILL ambient")
    assert capabilities(found) == [as_shown("CAP_KILL")] * 3 + [NONE] * 2


def test_no_new_privileges() -> None:
    assert executed([], "/proc/self/status")["NoNewPrivs"] == "0"
    assert executed([NoNewPrivileges()], "/proc/self/status")["NoNewPrivs"] == "1"


def test_limits_and_oom_score() -> None:
    plan = [SetRlimit("RLIMIT_NOFILE", 100, 200), SetRlimit("RLIMIT_CORE", 0, 0), SetOomScoreAdj(500)]
    found = executed(plan, "/proc/self/limits", "/proc/self/oom_score_adj")
    lines = [line.split() for line in found]
    assert ["Max", "open", "files", "100", "200", "files"] in lines
    assert ["Max", "core", "file", "size", "0", "0", "bytes"] in lines
    assert ["500"] in lines


def without_sys_resource() -> None:
    keep = capability.capget()[1] & ~(1 << SYS_RESOURCE)
    resource.prlimit(0, resource.RLIMIT_NOFILE, (512, 1024))
    capability.capset(keep, keep, 0)


def test_oom_score_that_may_not_be_lowered_is_a_warning() -> None:
    found = executed([SetOomScoreAdj(-500)], "/proc/self/oom_score_adj", first=without_sys_resource)
    assert found.pop("Warning").startswith("cannot set oom_score_adj to -500")
    assert "-500" not in found


def test_a_limit_that_may_not_be_raised_is_a_warning_and_as_high_as_may_be() -> None:
    found = executed([SetRlimit("RLIMIT_NOFILE", 4096, 8192)], "/proc/self/limits", first=without_sys_resource)
    assert found.pop("Warning") == (
        "cannot set RLIMIT_NOFILE to 8192: minirt has no CAP_SYS_RESOURCE here, and may only lower it "
        "(the container runs with 1024)"
    )
    assert ["Max", "open", "files", "1024", "1024", "files"] in [line.split() for line in found]
