"""Spec to plan: the order that keeps it safe, and what is refused before anything is done."""

import os
from typing import Any

import msgspec
import pytest

from minirt.cgroups.devices import DENY_ALL, AttachDeviceFilter
from minirt.cgroups.plan import MakeCgroup
from minirt.cgroups.tree import Tree
from minirt.errors import InvalidInput
from minirt.namespaces.devices import MakeDevice, MakeSymlink
from minirt.namespaces.kinds import JoinNamespace, OffsetClocks, SetHostname
from minirt.namespaces.mounts import BindMount, MaskPath, MountFilesystem, ReadonlyPath
from minirt.namespaces.rootfs import BindRootfs, HideBelow, MountOverlay, PivotRoot, ReadonlyRoot, SetPropagation
from minirt.namespaces.sysctl import WriteSysctl
from minirt.oci.compile import compile_affinity, compile_birth, compile_process, compile_spec, search_path
from minirt.oci.execution import SetAffinity, SetIoPriority, SetPersonality, SetScheduler
from minirt.oci.init import (
    Chdir,
    CloseInherited,
    Execute,
    FindExecutable,
    FindHome,
    LoadFilter,
    MakeCwd,
    NewKeyring,
    NewSession,
    OpenTerminal,
    SetUmask,
    Stdio,
    Undumpable,
    WaitForStart,
)
from minirt.oci.plan import Plan
from minirt.oci.spec import Affinity, Process, Spec
from minirt.security.labels import SetAppArmorProfile, SetSelinuxLabel
from minirt.security.operations import DropBounding, NoNewPrivileges, SetCredentials, SetOomScoreAdj, SetRlimit
from minirt.security.seccomp import Filter

TREE = Tree("/sys/fs/cgroup", "/sys/fs/cgroup", "/sys/fs/cgroup/minirt")
OWN = [{"type": kind} for kind in ("mount", "pid", "uts", "ipc", "network", "cgroup")]
FULL: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "hostname": "box",
    "process": {
        "args": ["sh", "-c", "true"],
        "cwd": "/work",
        "env": ["PATH=/a:/b", "X=y"],
        "user": {"uid": 1000, "gid": 100, "additionalGids": [4], "umask": 0o027},
        "capabilities": {"bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
        "noNewPrivileges": True,
        "oomScoreAdj": 500,
    },
    "root": {"path": "rootfs", "readonly": True},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "ro"]},
    ],
    "linux": {
        "namespaces": OWN,
        "cgroupsPath": "pod/one",
        "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}],
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
    },
}


def compiled(overlay: MountOverlay | None = None, *, linux: dict[str, Any] | None = None, **top: Any) -> Plan:
    content = FULL | top
    content["linux"] = FULL["linux"] | (linux or {})
    return compile_spec(msgspec.convert(content, Spec), "/bundle", overlay, TREE, 40)


def process(**changes: Any) -> dict[str, Any]:
    return FULL["process"] | changes


def kinds(plan: Plan) -> list[type]:
    """Return the classes of the operations inside, each run of the same one once."""
    found = [type(operation) for operation in plan.inside]
    return [kind for index, kind in enumerate(found) if index == 0 or found[index - 1] is not kind]


def test_everything_in_its_order() -> None:
    plan = compiled(linux={"namespaces": [*OWN[:-2], {"type": "network", "path": "/run/ns/net"}]})
    assert kinds(plan) == [
        Undumpable,
        CloseInherited,
        SetUmask,
        NewKeyring,
        SetOomScoreAdj,
        JoinNamespace,
        SetPropagation,
        BindRootfs,
        MountFilesystem,
        BindMount,
        MakeDevice,
        MakeSymlink,
        WriteSysctl,
        ReadonlyPath,
        MaskPath,
        MakeCwd,
        SetHostname,
        ReadonlyRoot,
        PivotRoot,
        NewSession,
        Stdio,
        SetRlimit,
        NoNewPrivileges,
        Chdir,
        DropBounding,
        SetCredentials,
        SetUmask,
        FindExecutable,
        FindHome,
        WaitForStart,
        Execute,
    ]


def place(plan: Plan, kind: type) -> int:
    return kinds(plan).index(kind)


def test_the_host_is_out_of_sight_before_rights_are_given_up() -> None:
    plan = compiled()
    for kind in (Chdir, DropBounding, SetCredentials, FindExecutable, WaitForStart):
        assert place(plan, PivotRoot) < place(plan, kind)
    assert place(plan, SetPropagation) < min(place(plan, kind) for kind in (BindRootfs, MountFilesystem, BindMount))


def test_masks_cover_what_was_mounted_and_what_was_made_read_only() -> None:
    plan = compiled()
    assert place(plan, BindMount) < place(plan, ReadonlyPath) < place(plan, MaskPath) < place(plan, PivotRoot)
    assert place(plan, MakeDevice) < place(plan, MaskPath), "files are masked with the container's own /dev/null"


def test_the_last_thing_before_execve_is_the_gate() -> None:
    assert [type(operation) for operation in compiled().inside[-3:]] == [FindHome, WaitForStart, Execute]


def test_the_birth_comes_first_and_leaves_no_mask() -> None:
    birth = [Undumpable(), CloseInherited(), SetUmask(0), NewKeyring()]
    assert list(compiled().inside[: len(birth)]) == compile_birth() == birth


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


def test_the_root_is_an_overlay_or_the_bundles_directory() -> None:
    overlay = MountOverlay(("/lower",), "/upper", "/work", "/bundle/rootfs")
    assert overlay in compiled(overlay).inside
    assert BindRootfs not in kinds(compiled(overlay))
    assert BindRootfs("/bundle/rootfs") in compiled().inside


def test_the_cgroup_is_the_shims_part() -> None:
    plan = compiled()
    assert plan.cgroup == "/sys/fs/cgroup/minirt/pod/one"
    assert MakeCgroup(plan.cgroup) in plan.shim
    assert "CLONE_INTO_CGROUP" in plan.describe_clone()


def test_without_a_cgroup_there_is_no_part_of_the_shims() -> None:
    plan = compiled(linux={"cgroupsPath": ""})
    assert (plan.cgroup, plan.shim) == ("", ())
    assert "CLONE_INTO_CGROUP" not in plan.describe_clone()


def test_a_pid_namespace_is_joined_by_init_s_parent() -> None:
    plan = compiled(linux={"namespaces": [{"type": "mount"}, {"type": "pid", "path": "/run/ns/pid"}], "sysctl": {}})
    assert plan.stage == (Undumpable(), JoinNamespace("pid", "/run/ns/pid"))
    assert JoinNamespace not in kinds(plan)
    assert plan.describe_clone() == "clone3 CLONE_NEWNS|CLONE_PARENT|CLONE_INTO_CGROUP|CLONE_PIDFD"


def test_other_namespaces_are_joined_by_init_before_it_mounts() -> None:
    joined = [{"type": "ipc", "path": "/run/ns/ipc"}, {"type": "network", "path": "/run/ns/net"}]
    plan = compiled(linux={"namespaces": [{"type": "mount"}, *joined]})
    assert plan.stage == ()
    assert [one for one in plan.inside if isinstance(one, JoinNamespace)] == [
        JoinNamespace("ipc", "/run/ns/ipc"),
        JoinNamespace("network", "/run/ns/net"),
    ]
    assert place(plan, JoinNamespace) < place(plan, SetPropagation)


def test_the_flags_are_those_of_new_namespaces() -> None:
    assert (
        compiled(linux={"namespaces": [{"type": "mount"}, {"type": "uts"}], "sysctl": {}}).clone_flags
        == 0x20000 | 0x4000000
    )


@pytest.mark.parametrize(
    ("asked", "made"),
    [("", "rslave"), ("slave", "rslave"), ("private", "rprivate"), ("shared", "rshared"), ("unbindable", "rslave")],
)
def test_propagation_is_cut_for_what_is_mounted_below_too(asked: str, made: str) -> None:
    assert SetPropagation(made) in compiled(linux={"rootfsPropagation": asked}).inside


def test_a_shared_root_hides_itself_and_cuts_off_the_old_one() -> None:
    inside = compiled(linux={"rootfsPropagation": "rshared"}).inside
    assert inside.index(SetPropagation("rshared")) < inside.index(HideBelow("/bundle/rootfs"))
    assert inside.index(HideBelow("/bundle/rootfs")) < inside.index(BindRootfs("/bundle/rootfs"))
    assert inside[inside.index(PivotRoot(shared=True)) + 1] == SetPropagation("rshared")
    overlay = MountOverlay(("/lower",), "/upper", "/work", "/merged")
    assert HideBelow("/merged") in compiled(overlay, linux={"rootfsPropagation": "shared"}).inside


def test_an_unbindable_root_becomes_so_last() -> None:
    inside = compiled(linux={"rootfsPropagation": "unbindable"}).inside
    assert inside[inside.index(PivotRoot()) + 1] == SetPropagation("unbindable")
    assert SetPropagation("rslave") in inside


TIME = [*OWN, {"type": "time"}]


def test_clocks_are_set_by_a_stage_and_the_namespace_is_not_made_twice() -> None:
    offsets = {"monotonic": {"secs": 60}, "boottime": {"secs": -1, "nanosecs": 5}}
    plan = compiled(linux={"namespaces": TIME, "timeOffsets": offsets})
    assert plan.stage == (Undumpable(), OffsetClocks((("monotonic", 60, 0), ("boottime", -1, 5))))
    assert "time" not in plan.new
    assert plan.has_clocks


def test_clocks_without_offsets_need_no_stage() -> None:
    plan = compiled(linux={"namespaces": TIME})
    assert plan.stage == ()
    assert "time" in plan.new
    assert plan.has_clocks
    joined = compiled(linux={"namespaces": [*OWN, {"type": "time", "path": "/ns/time"}]})
    assert JoinNamespace("time", "/ns/time") in joined.inside
    assert joined.has_clocks
    assert not compiled().has_clocks


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


def test_what_is_left_out_is_in_the_plan() -> None:
    assert compiled().warnings == ()
    assert compiled(linux={"mountLabel": "x"}).warnings == ("linux.mountLabel x is ignored: minirt labels no mounts",)


def test_a_dev_of_the_hosts_gets_no_nodes() -> None:
    bound = {"destination": "/dev/", "type": "bind", "source": "/dev", "options": ["rbind"]}
    found = kinds(compiled(mounts=[bound]))
    assert MakeDevice not in found
    assert MakeSymlink not in found


def test_a_device_that_every_container_has_is_made_once() -> None:
    null = {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600}
    made = [one for one in compiled(linux={"devices": [null]}).inside if isinstance(one, MakeDevice)]
    assert [one.path for one in made].count("/dev/null") == 1


def test_the_cgroup_mount_is_the_hosts_where_the_namespace_is() -> None:
    mounts = [{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}]
    fresh = compiled(mounts=mounts)
    shared = compiled(mounts=mounts, linux={"namespaces": OWN[:-1]})
    assert [one.describe() for one in fresh.inside if isinstance(one, MountFilesystem)] == [
        "mount -t cgroup2 cgroup /sys/fs/cgroup -o ro"
    ]
    assert [one.describe() for one in shared.inside if isinstance(one, BindMount)] == [
        "mount --rbind /sys/fs/cgroup /sys/fs/cgroup -o ro"
    ]


def test_a_mount_names_its_cause() -> None:
    assert [one.because for one in compiled().inside if isinstance(one, BindMount)] == ["mounts /data"]


def test_every_step_has_one_line() -> None:
    lines = list(compiled().lines())
    assert {stage for stage, _ in lines} == {"shim", "init"}
    assert all(line and "\n" not in line for _, line in lines)
    assert [line for stage, line in lines if stage == "shim"][-1].startswith("clone3 CLONE_NEWNS|")
    assert "SECRET" not in "".join(line for _, line in lines)


def test_with_a_stage_it_is_the_stage_that_clones() -> None:
    plan = compiled(linux={"namespaces": [{"type": "mount"}, {"type": "pid", "path": "/ns"}], "sysctl": {}})
    stages = [stage for stage, _ in plan.lines()]
    assert stages.index("shim") < stages.index("stage") < stages.index("init")
    assert [line.split()[0] for stage, line in plan.lines() if stage == "stage"] == ["prctl", "setns", "clone3"]


@pytest.mark.parametrize(
    ("top", "linux", "why"),
    [
        ({}, {"namespaces": [{"type": "pid"}]}, "no new mount namespace"),
        ({}, {"namespaces": [{"type": "mount", "path": "/ns/mnt"}]}, "no new mount namespace"),
        ({}, {"namespaces": [{"type": "mount"}, {"type": "mount"}]}, "twice"),
        ({}, {"namespaces": [*OWN, {"type": "pid", "path": "/ns/pid"}]}, "twice"),
        ({"process": {"args": []}}, {}, "process.args is empty"),
        ({}, {"sysctl": {"kernel.panic": "1"}}, "kernel.panic"),
        ({}, {"sysctl": {"net/../kernel/panic": "1"}}, "kernel/panic"),
        ({}, {"namespaces": [{"type": "mount"}]}, "net.ipv4.ip_forward"),
        ({}, {"timeOffsets": {"boottime": {"secs": 1}}}, "no new time namespace"),
        ({}, {"intelRdt": {}}, "linux.intelRdt"),
        ({"process": process(scheduler={"policy": "SCHED_X"})}, {}, "SCHED_X"),
        ({"domainname": "x"}, {"namespaces": [{"type": "mount"}], "sysctl": {}}, "kernel.domainname"),
        ({"process": process(rlimits=[{"type": "RLIMIT_X", "soft": 1, "hard": 1}])}, {}, "RLIMIT_X"),
        ({"process": process(oomScoreAdj=2000)}, {}, "2000"),
        ({"process": process(capabilities={"bounding": ["CAP_X"]})}, {}, "CAP_X"),
        ({}, {"devices": [{"path": "/dev/x", "type": "z"}]}, "/dev/x"),
        (
            {"mounts": [{"destination": "/x", "type": "bind", "source": "/x", "options": ["bind", "gid=1"]}]},
            {},
            "gid=1",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_done(
    top: dict[str, Any], linux: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidInput, match=why):
        compiled(linux=linux, **top)


def test_a_domain_name_is_the_namespaces() -> None:
    assert WriteSysctl("kernel.domainname", "example.org") in compiled(domainname="example.org").inside


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


NO_DEVICES = {"devices": [{"allow": False, "access": "rwm"}]}


def test_devices_are_filtered_before_anybody_is_in_the_cgroup() -> None:
    plan = compiled(linux={"resources": NO_DEVICES})
    [last] = [operation for operation in plan.shim if isinstance(operation, AttachDeviceFilter)]
    assert plan.shim[-1] is last
    assert (last.path, last.rules[0]) == (plan.cgroup, DENY_ALL)


def test_rules_without_a_cgroup_are_refused_and_not_ignored() -> None:
    with pytest.raises(InvalidInput, match="name a cgroup, or leave the rules out"):
        compiled(linux={"resources": NO_DEVICES, "cgroupsPath": ""})
    for rules in ([], [{"allow": True, "access": "rwm"}]):
        assert compiled(linux={"resources": {"devices": rules}, "cgroupsPath": ""}).shim == ()
