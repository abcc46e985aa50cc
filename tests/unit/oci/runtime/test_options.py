"""What flags change of a plan."""

from typing import Any

import msgspec
import pytest

from minirt.cgroups.tree import Tree
from minirt.errors import InvalidInput, Unsupported
from minirt.namespaces.rootfs import MoveRoot, PivotRoot
from minirt.oci.compile import compile_spec
from minirt.oci.init import NewKeyring
from minirt.oci.plan import Plan
from minirt.oci.runtime import options
from minirt.oci.runtime.options import Options
from minirt.oci.spec import Spec

MAPS = [{"containerID": 0, "hostID": 1000, "size": 1}]


def plan(**linux: Any) -> Plan:
    content = {
        "ociVersion": "1.2.0",
        "process": {"args": ["true"]},
        "root": {"path": "rootfs"},
        "linux": {"namespaces": [{"type": "mount"}], **linux},
    }
    tree = Tree("/sys/fs/cgroup", "/sys/fs/cgroup", "/sys/fs/cgroup/minirt")
    return compile_spec(msgspec.convert(content, Spec), "/b", None, tree, 40)


def test_without_pivot_root() -> None:
    inside = Options(no_pivot=True).applied(plan()).inside
    assert plan().inside.index(PivotRoot()) == inside.index(MoveRoot())
    assert MoveRoot().describe().endswith("mount --move . / && chroot .  (instead of pivot_root)")


@pytest.mark.parametrize(
    "linux",
    [
        {"rootfsPropagation": "shared"},
        {"namespaces": [{"type": "mount"}, {"type": "user"}], "uidMappings": MAPS, "gidMappings": MAPS},
    ],
)
def test_where_only_pivot_root_is_safe(linux: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="use --no-pivot"):
        Options(no_pivot=True).applied(plan(**linux))


def test_without_a_keyring() -> None:
    assert NewKeyring() in Options().applied(plan()).inside
    assert NewKeyring() not in Options(no_new_keyring=True).applied(plan()).inside


@pytest.mark.parametrize(
    ("flags", "manager"),
    [
        ({"cgroup_manager": "", "systemd_cgroup": False}, "cgroupfs"),
        ({"cgroup_manager": "", "systemd_cgroup": True}, "systemd"),
        ({"cgroup_manager": "disabled", "systemd_cgroup": False}, "disabled"),
    ],
)
def test_who_makes_the_cgroup(flags: dict[str, Any], manager: str) -> None:
    assert options.manager(flags) == manager


def test_what_is_not_offered() -> None:
    with pytest.raises(InvalidInput, match="none of cgroupfs"):
        options.manager({"cgroup_manager": "other", "systemd_cgroup": False})
    with pytest.raises(Unsupported, match="as root only"):
        options.check_rootless("true")
    with pytest.raises(InvalidInput, match="none of true"):
        options.check_rootless("maybe")
    for word in ("", "auto", "false"):
        options.check_rootless(word)
