"""What a user namespace changes about a plan: who does what, and in which order."""

from typing import Any

import msgspec
import pytest

from minirt.cgroups.delegation import DelegateCgroup
from minirt.cgroups.tree import Tree
from minirt.errors import InvalidInput
from minirt.linux.process import CLONE_NEWIPC, CLONE_NEWUSER
from minirt.namespaces.devices import MakeDevice
from minirt.namespaces.kinds import JoinNamespace, MakeNamespace, OffsetClocks
from minirt.namespaces.mounts import BindMount, MountFilesystem
from minirt.namespaces.rootfs import BindRootfs, MapLayer, MountOverlay, SetPropagation
from minirt.oci.compile import compile_spec
from minirt.oci.init import NewKeyring, Undumpable
from minirt.oci.joining import Host
from minirt.oci.plan import Plan
from minirt.oci.spec import Spec
from minirt.oci.userns import AttachMount, AwaitMaps, BecomeRoot, BindDevice, PrepareMount, RaiseRlimits, raised_limits
from minirt.security.operations import SetOomScoreAdj, SetRlimit

TREE = Tree("/sys/fs/cgroup", "/sys/fs/cgroup", "/sys/fs/cgroup/minirt")
NEW = [{"type": kind} for kind in ("user", "mount", "pid", "network", "ipc", "uts", "cgroup")]
MAP = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
LINES = ((0, 100_000, 65_536),)


def compiled(namespaces: list[dict[str, str]] = NEW, *, overlay: MountOverlay | None = None, **linux: Any) -> Plan:
    content = {
        "ociVersion": "1.2.0",
        "process": {
            "args": ["sh"],
            "oomScoreAdj": 5,
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
            {"destination": "/data", "type": "bind", "source": "/srv", "options": ["bind"]},
        ],
        "linux": {"namespaces": namespaces, "uidMappings": MAP, "gidMappings": MAP} | linux,
    }
    return compile_spec(msgspec.convert(content, Spec), "/bundle", overlay, TREE, 40)


def test_the_clone_makes_it_with_the_others() -> None:
    plan = compiled()
    assert plan.clone_flags & CLONE_NEWUSER
    assert not plan.clone_flags & CLONE_NEWIPC
    assert plan.has_user
    assert "CLONE_NEWUSER" in plan.describe_clone()
    assert (plan.uid_map, plan.gid_map) == (LINES, LINES)


def test_the_stage_does_what_needs_the_hosts_rights() -> None:
    stage = compiled().stage
    assert isinstance(stage[0], Undumpable)
    assert stage[1] == RaiseRlimits((("RLIMIT_NOFILE", 20),))
    assert stage[2] == SetOomScoreAdj(5)
    prepared = [one.of for one in stage if isinstance(one, PrepareMount)]
    assert prepared[0] == BindRootfs("/bundle/rootfs")
    assert prepared[1] == BindMount("/srv", "/data", recursive=False, cause="mounts /data")
    assert prepared[2] == BindDevice("/dev/null", "c", 1, 3)


def test_what_is_prepared_is_attached_in_the_same_order() -> None:
    plan = compiled()
    prepared = [one.of for one in plan.stage if isinstance(one, PrepareMount)]
    assert prepared == [one.of for one in plan.inside if isinstance(one, AttachMount)]
    assert not any(isinstance(one, BindMount | BindRootfs | MakeDevice | SetOomScoreAdj) for one in plan.inside)


def test_init_waits_for_its_maps_then_places_the_root_then_is_root() -> None:
    inside = compiled().inside
    kinds = [type(one) for one in inside]
    at = kinds.index(AwaitMaps)
    assert kinds[at - 1 : at + 3] == [NewKeyring, AwaitMaps, SetPropagation, AttachMount]
    assert inside[at + 3 : at + 5] == (BecomeRoot(), MakeNamespace("ipc"))
    assert kinds[at + 5] is MountFilesystem
    assert kinds.count(BecomeRoot) == 1
    assert AwaitMaps() in inside
    assert SetRlimit in kinds


def test_an_overlay_is_mounted_outside() -> None:
    overlay = MountOverlay(("/l",), "/u", "/w", "/bundle/rootfs")
    plan = compiled(overlay=overlay)
    assert PrepareMount(overlay) in plan.stage
    assert plan.inside[plan.inside.index(AttachMount(overlay)) + 1] == BecomeRoot()


def test_one_by_its_path_is_joined_last_and_has_maps() -> None:
    spaces = [
        {"type": "user", "path": "/u"},
        {"type": "mount"},
        {"type": "network", "path": "/n"},
        {"type": "pid", "path": "/p"},
    ]
    plan = compiled(spaces)
    joins = [one for one in plan.stage if isinstance(one, JoinNamespace)]
    assert joins == [JoinNamespace("pid", "/p"), JoinNamespace("network", "/n"), JoinNamespace("user", "/u")]
    assert plan.stage[-1] == joins[-1]
    assert not any(isinstance(one, JoinNamespace | AwaitMaps) for one in plan.inside)
    assert plan.uid_map == ()
    assert plan.has_user


def test_clocks_are_set_before_it_is_joined() -> None:
    spaces = [{"type": "user", "path": "/u"}, {"type": "mount"}, {"type": "time"}]
    kinds = [type(one) for one in compiled(spaces, timeOffsets={"boottime": {"secs": 1}}).stage]
    assert kinds[-2:] == [OffsetClocks, JoinNamespace]


def test_sys_is_the_hosts_where_the_network_is() -> None:
    plan = compiled([{"type": "user"}, {"type": "mount"}])
    bound = next(one.of for one in plan.stage if isinstance(one, PrepareMount) and "/sys" in one.describe())
    assert bound == BindMount("/sys", "/sys", 1, cause="mounts /sys")


def test_a_pipe_is_made_inside() -> None:
    plan = compiled(devices=[{"path": "/dev/pipe", "type": "p"}])
    assert MakeDevice("/dev/pipe", "p", 0, 0) in plan.inside


def test_an_idmapped_bind_has_the_containers_maps() -> None:
    mounts = [{"destination": "/data", "type": "bind", "source": "/srv", "options": ["bind", "idmap"]}]
    content = {
        "ociVersion": "1.2.0",
        "process": {"args": ["sh"]},
        "root": {"path": "r"},
        "mounts": mounts,
        "linux": {"namespaces": NEW, "uidMappings": MAP, "gidMappings": MAP},
    }
    plan = compile_spec(msgspec.convert(content, Spec), "/b", None, TREE, 40)
    bind = next(one.of for one in plan.stage if isinstance(one, PrepareMount) and isinstance(one.of, BindMount))
    assert (bind.uid_map, bind.gid_map) == (LINES, LINES)


@pytest.mark.parametrize("name", ["uidMappings", "gidMappings"])
def test_maps_without_a_user_namespace_are_an_error(name: str) -> None:
    other = {"uidMappings": [], "gidMappings": []} | {name: MAP}
    with pytest.raises(InvalidInput, match=rf"cannot use linux\.{name}: .*no user namespace"):
        compiled(NEW[1:], **other)


@pytest.mark.parametrize("name", ["uidMappings", "gidMappings"])
def test_a_new_one_without_maps_is_an_error(name: str) -> None:
    with pytest.raises(InvalidInput, match=rf"a new user namespace, and linux\.{name} is empty"):
        compiled(**{name: []})


@pytest.mark.parametrize(
    ("first", "why"),
    [
        ({"containerID": 1, "size": 10}, "it has no line for id 0"),
        ({"containerID": 0, "size": 0}, "0:100000:0 maps no id at all"),
    ],
)
@pytest.mark.parametrize("name", ["uidMappings", "gidMappings"])
def test_maps_that_make_no_sense_are_an_error(name: str, first: dict[str, int], why: str) -> None:
    with pytest.raises(InvalidInput, match=rf"cannot use linux\.{name}: {why}"):
        compiled(**{name: [first | {"hostID": 100_000}]})


def test_an_overlays_layers_are_mapped_first_in_a_mount_namespace_of_the_stages_own() -> None:
    overlay = MountOverlay(("/a", "/b"), "/up", "/work", "/bundle/rootfs", mapped=True)
    lines = ((0, 100_000, 65_536),)
    made = compiled(overlay=overlay).stage
    assert made[1:5] == (
        MakeNamespace("mount"),
        SetPropagation("rslave"),
        MapLayer("/a", lines, lines),
        MapLayer("/b", lines, lines),
    )
    assert PrepareMount(overlay) in made


def test_an_overlay_whose_layers_have_the_right_ids_is_left_alone() -> None:
    overlay = MountOverlay(("/a",), "/up", "/work", "/bundle/rootfs")
    assert not any(isinstance(one, MapLayer) for one in compiled(overlay=overlay).stage)


def test_without_one_nothing_changes() -> None:
    plan = compiled(NEW[1:], uidMappings=[], gidMappings=[])
    assert plan.stage == ()
    assert not plan.has_user
    assert not any(isinstance(one, AttachMount | AwaitMaps | BecomeRoot) for one in plan.inside)


def test_exec_leaves_it_out_of_what_the_stage_joins() -> None:
    assert not Host(1, "", has_user=True).kinds() & CLONE_NEWUSER


def test_the_plan_tells_of_the_maps() -> None:
    assert ("shim", "write 0 100000 65536 to uid_map") in list(compiled().lines())


def test_raised_limits_are_those_that_are_set_later() -> None:
    assert raised_limits([SetRlimit("RLIMIT_CORE", 0, 7), SetRlimit("RLIMIT_NOFILE", 1, 2)]).limits == (
        ("RLIMIT_CORE", 7),
        ("RLIMIT_NOFILE", 2),
    )


CGROUPS = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}


@pytest.mark.parametrize(
    ("options", "kinds", "given"),
    [
        (["rw"], ["cgroup"], True),
        ([], ["cgroup"], True),
        (["ro"], ["cgroup"], False),
        (["ro", "rw"], ["cgroup"], True),
        (["rw"], [], False),
    ],
)
def test_a_cgroup_is_given_to_who_sees_it_writable(options: list[str], kinds: list[str], given: bool) -> None:
    content = {
        "ociVersion": "1.2.0",
        "process": {"args": ["true"]},
        "root": {"path": "r"},
        "mounts": [CGROUPS | {"options": options}],
        "linux": {
            "cgroupsPath": "/one",
            "namespaces": [{"type": kind} for kind in ("mount", "user", *kinds)],
            "uidMappings": [{"containerID": 5, "hostID": 7, "size": 9}, {"containerID": 0, "hostID": 3, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": 4, "size": 1}],
        },
    }
    plan = compile_spec(msgspec.convert(content, Spec), "/b", None, TREE, 40)
    assert (DelegateCgroup(f"{TREE.mount}/one", 3) in plan.shim) is given


def test_delegation_described() -> None:
    line = "chown 3 /c and its cgroup.procs, cgroup.threads, cgroup.subtree_control"
    assert DelegateCgroup("/c", 3).describe() == line
