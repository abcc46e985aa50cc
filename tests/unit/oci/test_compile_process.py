"""Process to plan: what it may, how it is run, and in which order rights are given up."""

import os
from typing import Any

import msgspec
import pytest

from minirt.namespaces.kinds import SetHostname
from minirt.namespaces.rootfs import BindRootfs, PivotRoot, ReadonlyRoot, SetPropagation
from minirt.namespaces.sysctl import WriteSysctl
from minirt.oci.compile import compile_affinity, compile_process, search_path
from minirt.oci.execution import SetAffinity, SetIoPriority, SetPersonality, SetScheduler
from minirt.oci.init import (
    Chdir,
    Execute,
    FindExecutable,
    FindHome,
    LoadFilter,
    MakeCwd,
    OpenTerminal,
    SetUmask,
    WaitForStart,
)
from minirt.oci.spec import Affinity, Process
from minirt.security.labels import SetAppArmorProfile, SetSelinuxLabel
from minirt.security.operations import DropBounding, NoNewPrivileges, SetCredentials, SetOomScoreAdj, SetRlimit
from minirt.security.seccomp import Filter
from tests.unit.oci.plans import FULL, compiled, kinds, place, process


def test_the_last_thing_before_execve_is_the_gate() -> None:
    assert [type(operation) for operation in compiled().inside[-3:]] == [FindHome, WaitForStart, Execute]


def test_what_the_process_asks_for() -> None:
    operations = compiled().inside
    assert SetOomScoreAdj(500) in operations
    assert SetRlimit("RLIMIT_NOFILE", 1, 2) in operations
    assert SetUmask(0o027) in operations
    assert Chdir("/work") in operations
    assert MakeCwd("/work") in operations
    assert FindExecutable("sh", ("/a", "/b")) in operations
    assert Execute(("sh", "-c", "true"), ("PATH=/a:/b", "X=y")) in operations
    assert DropBounding(frozenset({0}), 40) in operations
    kept = frozenset({21})
    assert SetCredentials(1000, 100, (4,), frozenset({0}), frozenset({0}), until_execve=kept) in operations


def test_what_it_does_not_ask_for_is_left_out() -> None:
    plan = compiled(process={"args": ["true"]}, root={"path": "/absolute"}, hostname="", linux={"sysctl": {}})
    for kind in (SetOomScoreAdj, SetRlimit, NoNewPrivileges, ReadonlyRoot, SetHostname, WriteSysctl):
        assert kind not in kinds(plan)
    assert BindRootfs("/absolute") in plan.inside
    assert SetUmask(0o022) in plan.inside


def test_how_the_process_is_run() -> None:
    plan = compiled(
        process=process(
            scheduler={"policy": "SCHED_BATCH", "nice": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            ioPriority={"class": "IOPRIO_CLASS_IDLE"},
            apparmorProfile="web",
            selinuxLabel="u:r:t:s0",
            execCPUAffinity={"initial": "0"},
        ),
        linux={"personality": {"domain": "LINUX32"}},
    )
    assert SetScheduler("SCHED_BATCH", ("SCHED_FLAG_RESET_ON_FORK",), nice=3) in plan.inside
    assert place(plan, SetIoPriority) < place(plan, SetScheduler) < place(plan, DropBounding)
    assert plan.inside.index(SetAppArmorProfile("web")) < plan.inside.index(SetSelinuxLabel("u:r:t:s0"))
    assert place(plan, SetSelinuxLabel) < place(plan, SetPropagation), "the host's /proc is the one to be trusted"
    assert plan.inside[plan.inside.index(PivotRoot()) - 1] == SetPersonality("LINUX32")
    assert SetAffinity not in kinds(plan), "it is for processes that are executed later"


def test_cpus_of_a_process_executed_later() -> None:
    assert compile_affinity(Affinity("0-1", "1")) == ([SetAffinity((0, 1))], [SetAffinity((1,))])
    assert compile_affinity(Affinity()) == ([], [])


FILTER = Filter(bytes(8), 4)


def filtered(**process_: Any) -> list[Any]:
    """Return the tail of a process that is filtered."""
    spec = msgspec.convert(FULL["process"] | process_, Process)
    return list(compile_process(spec, 40, console=True, filter=FILTER))


def test_a_filter_is_loaded_by_the_last_step_alone() -> None:
    assert filtered()[-3:] == [WaitForStart(), LoadFilter(FILTER), Execute(("sh", "-c", "true"), ("PATH=/a:/b", "X=y"))]
    assert not any(isinstance(operation, LoadFilter) for operation in compiled().inside)


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_what_the_last_step_needs_is_kept_until_execve_takes_it(no_new_privileges: bool) -> None:
    found = next(one for one in filtered(noNewPrivileges=no_new_privileges) if isinstance(one, SetCredentials))
    assert (found.until_execve, found.permitted, found.effective) == (frozenset({21}), frozenset({0}), frozenset({0}))


def test_a_process_executed_later_has_the_same_tail() -> None:
    spec = msgspec.convert(FULL["process"] | {"terminal": True, "consoleSize": {"height": 2, "width": 3}}, Process)
    later = compile_process(spec, 40, console=False)
    assert later[1] == OpenTerminal(2, 3, console=False, uid=1000)
    assert [type(one) for one in later[2:]] == [type(one) for one in compiled().inside if one in later[2:]]


@pytest.mark.parametrize(
    ("env", "found"),
    [
        (("PATH=/x:/y",), ("/x", "/y")),
        (("PATH=/x", "PATH=/y"), ("/y",)),
        (("PATH=:/x",), (".", "/x")),
        (("PATHS=/x",), ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")),
    ],
)
def test_where_commands_are_looked_for(env: tuple[str, ...], found: tuple[str, ...]) -> None:
    assert search_path(env) == found


def test_nothing_is_looked_up_while_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a compiler touches nothing")

    for name in ("open", "mkdir", "stat", "listdir", "readlink"):
        monkeypatch.setattr(os, name, refuse)
    assert list(compiled().lines())


def test_a_home_is_looked_up_only_where_there_is_none() -> None:
    assert FindHome(1000) in compiled().inside
    plan = compiled(process=process(env=["HOME=/h"]))
    assert not any(isinstance(operation, FindHome) for operation in plan.inside)
