from pathlib import Path

import pytest

from minirt.cgroups.limits import Setting, linear
from minirt.cgroups.plan import DelegateUnit, EnableControllers, MakeCgroup, WriteCgroup, plan_cgroup
from minirt.cgroups.resources import Cpu, Memory, Resources
from minirt.cgroups.tree import Tree
from minirt.errors import InvalidInput

TOP = "/sys/fs/cgroup"
PLAIN = Tree(TOP, TOP, f"{TOP}/minirt")
UNIT = Tree(TOP, f"{TOP}/u.service", f"{TOP}/u.service/minirt")


def test_a_containers_cgroup() -> None:
    resources = Resources(memory=Memory(limit=64), cpu=Cpu(quota=50000))
    needed = frozenset({"memory", "cpu"})
    assert plan_cgroup("pod1/web", resources, PLAIN, cause="spec.containers[0].resources") == [
        EnableControllers(TOP, needed),
        MakeCgroup(f"{TOP}/minirt", new=False),
        EnableControllers(f"{TOP}/minirt", needed),
        MakeCgroup(f"{TOP}/minirt/pod1", new=False),
        EnableControllers(f"{TOP}/minirt/pod1", needed),
        MakeCgroup(f"{TOP}/minirt/pod1/web", cause="spec.containers[0].resources"),
        WriteCgroup(
            f"{TOP}/minirt/pod1/web", Setting("cpu.max", "50000 100000", "cpu"), "spec.containers[0].resources"
        ),
        WriteCgroup(f"{TOP}/minirt/pod1/web", Setting("memory.max", "64", "memory"), "spec.containers[0].resources"),
    ]


def test_each_line_says_what_the_kernel_is_told() -> None:
    plan = plan_cgroup("pod1", Resources(cpu=Cpu(shares=1024)), PLAIN, weight=linear)
    assert [operation.describe() for operation in plan] == [
        "write +cpu +cpuset +io +memory +pids to /sys/fs/cgroup/cgroup.subtree_control, those it has",
        "mkdir /sys/fs/cgroup/minirt",
        "write +cpu +cpuset +io +memory +pids to /sys/fs/cgroup/minirt/cgroup.subtree_control, those it has",
        "mkdir /sys/fs/cgroup/minirt/pod1",
        "write 39 to /sys/fs/cgroup/minirt/pod1/cpu.weight",
    ]


def test_a_cause_is_of_the_cgroup_itself_not_of_those_above() -> None:
    plan = plan_cgroup("pod1", Resources(memory=Memory(limit=64)), PLAIN, cause="a.field")
    assert [operation.because for operation in plan] == ["", "", "", "a.field", "a.field"]


def test_no_limit_is_not_written() -> None:
    assert plan_cgroup("p", Resources(memory=Memory(limit=-1)), PLAIN)[-1] == MakeCgroup(f"{TOP}/minirt/p")


def test_a_controller_of_unified_is_asked_for_as_well() -> None:
    plan = plan_cgroup("p", Resources(unified={"hugetlb.2MB.max": "0"}), PLAIN)
    assert "+hugetlb" in plan[0].describe()


def test_under_systemd_the_unit_comes_first() -> None:
    plan = plan_cgroup("pod1", Resources(), UNIT)
    assert plan[0] == DelegateUnit(f"{TOP}/u.service")
    assert plan[1:3] == [EnableControllers(f"{TOP}/u.service"), MakeCgroup(f"{TOP}/u.service/minirt", new=False)]
    assert "systemd" in plan[0].describe()


def test_a_path_of_somebody_elses_needs_no_unit() -> None:
    assert plan_cgroup("/kubepods/pod1/c", Resources(), UNIT) == [
        EnableControllers(TOP),
        MakeCgroup(f"{TOP}/kubepods", new=False),
        EnableControllers(f"{TOP}/kubepods"),
        MakeCgroup(f"{TOP}/kubepods/pod1", new=False),
        EnableControllers(f"{TOP}/kubepods/pod1"),
        MakeCgroup(f"{TOP}/kubepods/pod1/c"),
    ]


@pytest.mark.parametrize("path", ["..", "pod1/../../x", "pod1//web", "", "/"])
def test_bad_paths_are_refused(path: str) -> None:
    with pytest.raises(InvalidInput):
        plan_cgroup(path, Resources(), PLAIN)


def test_bad_limits_are_refused_before_anything_is_planned() -> None:
    with pytest.raises(InvalidInput):
        plan_cgroup("p", Resources(memory=Memory(limit=64, swap=1)), PLAIN)


@pytest.mark.parametrize(
    ("offered", "given", "written"),
    [
        ("cpuset cpu io memory hugetlb pids rdma", "", "+cpu +cpuset +io +memory +pids"),
        ("cpu io memory", "io memory", "+cpu"),
        ("cpu memory", "cpu memory", "cpu memory"),
        ("hugetlb", "", ""),
        ("", "", ""),
    ],
)
def test_only_what_is_offered_and_not_yet_given_is_written(
    tmp_path: Path, offered: str, given: str, written: str
) -> None:
    (tmp_path / "cgroup.controllers").write_text(offered)
    control = tmp_path / "cgroup.subtree_control"
    control.write_text(given)
    EnableControllers(str(tmp_path)).execute(None)
    assert control.read_text()[: len(written)] == written


def test_a_setting_is_one_write(tmp_path: Path) -> None:
    (tmp_path / "memory.max").touch()
    WriteCgroup(str(tmp_path), Setting("memory.max", "4096", "memory")).execute(None)
    assert (tmp_path / "memory.max").read_text() == "4096"


def test_a_cgroup_is_a_directory(tmp_path: Path) -> None:
    MakeCgroup(f"{tmp_path}/c").execute(None)
    assert (tmp_path / "c").is_dir()
    MakeCgroup(f"{tmp_path}/c", new=False).execute(None)
    with pytest.raises(FileNotFoundError):
        MakeCgroup(f"{tmp_path}/none/c").execute(None)


def test_a_unit_with_its_keeper_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "keeper").mkdir()
    (tmp_path / "keeper/cgroup.procs").write_text("1\n")
    DelegateUnit(str(tmp_path)).execute(None)
    assert [path.name for path in tmp_path.iterdir()] == ["keeper"]
