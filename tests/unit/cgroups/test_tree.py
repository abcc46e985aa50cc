import pytest

from minirt.cgroups.tree import Tree, mount_point, mounts
from minirt.errors import ControllerMissing, InvalidInput

UNIFIED = "26 23 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
HYBRID = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw shared:4 - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 master:2 - cgroup2 cgroup2 rw\n"
)
OVER_HYBRID = HYBRID + "60 31 0:38 / /sys/fs/cgroup rw - cgroup2 none rw\n"
ELSEWHERE = "41 31 0:38 / /mnt/a\\040b rw - cgroup2 cgroup2 rw\n"

PLAIN = Tree("/sys/fs/cgroup", "/sys/fs/cgroup", "/sys/fs/cgroup/minirt")
UNIT = Tree("/sys/fs/cgroup", "/sys/fs/cgroup/u.service", "/sys/fs/cgroup/u.service/minirt")


@pytest.mark.parametrize(
    ("mountinfo", "point"),
    [
        (UNIFIED, "/sys/fs/cgroup"),
        (HYBRID, "/sys/fs/cgroup/unified"),
        (OVER_HYBRID, "/sys/fs/cgroup"),
        (ELSEWHERE, "/mnt/a b"),
        (ELSEWHERE + HYBRID, "/sys/fs/cgroup/unified"),
        (HYBRID + UNIFIED.replace("cgroup2 cgroup2", "tmpfs x"), "/sys/fs/cgroup/unified"),
    ],
)
def test_mount_point(mountinfo: str, point: str) -> None:
    assert mount_point(mountinfo) == point


def test_no_cgroup2_says_what_to_do() -> None:
    with pytest.raises(ControllerMissing, match="mount -t cgroup2"):
        mount_point(HYBRID.splitlines()[0])


def test_mounts_skip_the_optional_fields() -> None:
    assert mounts(HYBRID)[1:] == [
        ("/sys/fs/cgroup/memory", "cgroup", "rw,memory"),
        ("/sys/fs/cgroup/unified", "cgroup2", "rw"),
    ]


@pytest.mark.parametrize(
    ("tree", "path", "directory"),
    [
        (PLAIN, "pod1/web", "/sys/fs/cgroup/minirt/pod1/web"),
        (PLAIN, "/docker/abc", "/sys/fs/cgroup/docker/abc"),
        (PLAIN, "/docker/abc/", "/sys/fs/cgroup/docker/abc"),
        (PLAIN, "/sys/fs/cgroup/minirt/pod1", "/sys/fs/cgroup/minirt/pod1"),
        (UNIT, "pod1", "/sys/fs/cgroup/u.service/minirt/pod1"),
        (UNIT, "/docker/abc", "/sys/fs/cgroup/docker/abc"),
    ],
)
def test_where_a_path_is(tree: Tree, path: str, directory: str) -> None:
    assert tree.at(path) == directory


@pytest.mark.parametrize(
    "path", ["", "/", "..", "../x", "a/../../x", "a//b", "a/.", "cgroup.procs", "a/cgroup.x", "\0"]
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput):
        PLAIN.at(path)


@pytest.mark.parametrize(
    ("tree", "cgroup", "above"),
    [
        (PLAIN, "/sys/fs/cgroup/minirt/p/c", ["", "/minirt", "/minirt/p"]),
        (PLAIN, "/sys/fs/cgroup/x", [""]),
        (UNIT, "/sys/fs/cgroup/u.service/minirt/p", ["/u.service", "/u.service/minirt"]),
        (UNIT, "/sys/fs/cgroup/x/y", ["", "/x"]),
    ],
)
def test_who_must_give_controllers(tree: Tree, cgroup: str, above: list[str]) -> None:
    assert tree.ancestors(cgroup) == [f"/sys/fs/cgroup{name}" for name in above]
