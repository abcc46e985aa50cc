"""systemd's names for scopes and for limits; that it is asked is seen where it is PID 1 (tests/contract/oci)."""

import pytest

from minirt.cgroups import systemd
from minirt.cgroups.limits import Setting, limits
from minirt.cgroups.plan import WriteCgroup, plan_cgroup
from minirt.cgroups.resources import BlockIO, Cpu, Memory, Pids, Resources
from minirt.cgroups.systemd import Scope, StartScope, in_scope, properties, scope_of
from minirt.cgroups.tree import Tree
from minirt.errors import InvalidInput


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("", Scope("minirt-one.scope", "system.slice", "/system.slice/minirt-one.scope")),
        ("system.slice:docker:x", Scope("docker-x.scope", "system.slice", "/system.slice/docker-x.scope")),
        ("a-b.slice:cri:x", Scope("cri-x.scope", "a-b.slice", "/a.slice/a-b.slice/cri-x.scope")),
        ("::x", Scope("x.scope", "system.slice", "/system.slice/x.scope")),
        ("-.slice:p:x", Scope("p-x.scope", "-.slice", "/p-x.scope")),
    ],
)
def test_names(path: str, scope: Scope) -> None:
    assert scope_of(path, "one") == scope


@pytest.mark.parametrize("path", ["/a/b", "a", "a:b", "a.slice:b:c:d", "a:b:c", "a.slice:b:", "a.slice:b:c/d"])
def test_what_is_no_name(path: str) -> None:
    with pytest.raises(InvalidInput, match=r"linux\.cgroupsPath"):
        scope_of(path, "one")


def test_limits_as_properties() -> None:
    asked = Resources(
        memory=Memory(limit=1 << 26, swap=1 << 27, reservation=1 << 25),
        cpu=Cpu(shares=1024, quota=12_345, period=50_000, cpus="0-2,9", mems="0"),
        pids=Pids(20),
        block_io=BlockIO(weight=10),
        unified={"memory.high": "max", "hugetlb.2MB.max": "0"},
    )
    assert dict(properties(limits(asked))) == {
        "MemoryMax": ("t", 1 << 26),
        "MemorySwapMax": ("t", 1 << 26),
        "MemoryLow": ("t", 1 << 25),
        "MemoryHigh": ("t", (1 << 64) - 1),
        "CPUWeight": ("t", 100),
        "CPUQuotaPerSecUSec": ("t", 250_000),
        "CPUQuotaPeriodUSec": ("t", 50_000),
        "AllowedCPUs": ("ay", b"\x07\x02"),
        "AllowedMemoryNodes": ("ay", b"\x01"),
        "TasksMax": ("t", 20),
        "IOWeight": ("t", 1),
    }


def test_what_systemd_has_no_words_for_is_left_to_the_files() -> None:
    asked = {"memory.high": "60M", "cpu.max": "max", "cpu.weight": "idle", "io.weight": "8:0 5", "pids.max": "9"}
    assert properties(limits(Resources(unified=asked))) == [("TasksMax", ("t", 9))]


def test_no_quota_is_no_limit() -> None:
    found = dict(properties(limits(Resources(cpu=Cpu(quota=-1, period=50_000)))))
    assert found["CPUQuotaPerSecUSec"] == ("t", (1 << 64) - 1)


@pytest.mark.parametrize("text", ["", "a", "1-", "99999999"])
def test_what_is_no_list_of_cpus(text: str) -> None:
    with pytest.raises(InvalidInput, match="list of CPUs"):
        properties(limits(Resources(unified={"cpuset.cpus": text})))


def test_systemd_makes_the_cgroup_and_those_above_it() -> None:
    tree = Tree("/sys/fs/cgroup", "/sys/fs/cgroup", "/sys/fs/cgroup/minirt")
    scope = scope_of("system.slice:minirt:one", "one")
    first, *rest = in_scope(plan_cgroup(scope.path, Resources(pids=Pids(20)), tree), scope, 7)
    assert first == StartScope("minirt-one.scope", "system.slice", 7, (Setting("pids.max", "20", "pids"),))
    assert first.describe() == (
        "have systemd start minirt-one.scope in system.slice (StartTransientUnit, Delegate=yes)"
    )
    assert [type(one) for one in rest] == [WriteCgroup]


def test_an_anchor_lasts_as_long_as_the_block() -> None:
    import os

    with systemd.anchor() as pid:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
