"""Another OCI runtime: the bundle it is given, the mount namespace of its commands, and what its errors mean."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from minirt.cgroups.tree import Tree
from minirt.errors import CommandNotFound, MinirtError, NotExecutable, ShimError
from minirt.namespaces.kinds import MakeNamespace
from minirt.namespaces.rootfs import HideBelow, MountOverlay, SetPropagation
from minirt.oci import foreign
from minirt.oci.foreign import MountCgroups, Runtime
from minirt.oci.spec import Process, Spec
from tests.unit.oci.plans import FULL, OWN, TREE

HYBRID = Tree("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/minirt")
OVERLAY = MountOverlay(("/l",), "/u", "/w", "/c/rootfs")


def spec(**linux: Any) -> Spec:
    return msgspec.convert(FULL | {"linux": FULL["linux"] | linux}, Spec)


def test_a_bundle_has_whole_paths_and_leaves_nothing_open() -> None:
    found = json.loads(foreign.encoded(foreign.config_of(spec(), "/c/rootfs", HYBRID)))
    assert found["root"]["path"] == "/c/rootfs"
    assert found["linux"]["cgroupsPath"] == "/minirt/pod/one"
    assert (found["hostname"], found["linux"]["rootfsPropagation"]) == ("box", "rslave")


def test_the_hosts_name_is_not_set_anew() -> None:
    shared = [space for space in OWN if space["type"] != "uts"]
    assert "hostname" not in json.loads(foreign.encoded(foreign.config_of(spec(namespaces=shared), "/r", TREE)))


def test_a_process_says_also_what_is_usual() -> None:
    found = json.loads(foreign.encoded(Process(args=("true",))))
    assert (found["cwd"], found["user"], found["capabilities"]) == ("/", {"uid": 0, "gid": 0}, {})


def test_only_the_cgroup_is_left_to_make() -> None:
    plan = foreign.plan_of(spec(resources={"memory": {"limit": 1 << 20}}), TREE)
    assert plan.cgroup == "/sys/fs/cgroup/minirt/pod/one"
    assert {type(one).__name__ for one in plan.shim} == {"MakeCgroup", "EnableControllers"}
    assert (plan.stage, plan.new, plan.inside) == ((), (), ())


def test_the_root_is_mounted_where_nobody_else_sees_it() -> None:
    private = [MakeNamespace("mount"), SetPropagation("rslave")]
    assert foreign.with_root(spec(), OVERLAY, TREE) == [*private, OVERLAY]
    assert foreign.without_root(HYBRID) == [*private, HideBelow("/sys/fs/cgroup"), MountCgroups()]
    shared = foreign.with_root(spec(rootfsPropagation="rshared"), OVERLAY, TREE)
    assert shared == [MakeNamespace("mount"), SetPropagation("rshared"), HideBelow("/c/rootfs"), OVERLAY]


@pytest.mark.parametrize(
    ("why", "kind"),
    [
        ('exec: "nope": executable file not found in $PATH', CommandNotFound),
        ("executable file `nope` not found in $PATH: No such file or directory", CommandNotFound),
        ('exec: "nope": stat nope: no such file or directory', CommandNotFound),
        ('exec: "nope": permission denied', NotExecutable),
        ("exec nope: exec format error", NotExecutable),
        ("mount /x: no such file or directory", ShimError),
        ("setrlimit (RLIM_MEMLOCK): Operation not permitted", ShimError),
    ],
)
def test_the_last_error_of_its_log_is_told(tmp_path: Path, why: str, kind: type[MinirtError]) -> None:
    runtime = Runtime("/usr/sbin/runc", "id", str(tmp_path))
    lines = [{"level": "warning", "msg": "odd"}, {"level": "error", "msg": why}, {"level": "info", "msg": "bye"}]
    (tmp_path / "create.log").write_text("".join(json.dumps(line) + "\n" for line in lines) + "garbage\n")
    error = runtime.error("create", "create.log", 1, "nope")
    assert type(error) is kind
    assert why in str(error)


def test_a_runtime_that_gives_no_reason(tmp_path: Path) -> None:
    error = Runtime("/usr/sbin/runc", "id", str(tmp_path)).error("start", "start.log", 137, "nope")
    assert "ended with code 137" in str(error)


def test_a_command_line() -> None:
    arguments = Runtime("/usr/sbin/runc", "id", "/c/runtime").arguments("start.log", "start")
    assert " ".join(arguments) == (
        "/usr/sbin/runc --root /c/runtime/state --log /c/runtime/start.log --log-format json start id"
    )
