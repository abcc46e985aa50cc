import pytest

from minirt.cgroups.limits import Setting
from minirt.cgroups.missing import V1_DO, keep, lost, remedy, size, words
from minirt.cgroups.resources import BlockIO, Cpu, DeviceRule, Memory, Pids, Resources

MI = 1024 * 1024
EVERYTHING = Resources(
    memory=Memory(limit=64 * MI, swap=64 * MI),
    cpu=Cpu(shares=256, quota=25000, cpus="0"),
    pids=Pids(limit=10),
    block_io=BlockIO(weight=100),
    unified={"memory.high": "5", "hugetlb.2MB.max": "0", "cgroup.max.depth": "1"},
)


def test_devices_need_no_controller() -> None:
    rules = (DeviceRule(True, "c", 1, 3, "rw"),)
    assert keep(Resources(pids=Pids(5), devices=rules), frozenset()) == Resources(devices=rules)


ALL = frozenset({"cpu", "cpuset", "io", "memory", "pids", "hugetlb"})


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (Setting("memory.max", str(64 * MI), "memory"), "limit memory of web/nginx to 64Mi"),
        (Setting("memory.swap.max", "0", "memory"), "limit swap of web/nginx to 0"),
        (Setting("memory.low", "4097", "memory"), "keep 4097 bytes of memory for web/nginx"),
        (Setting("cpu.max", "25000 100000", "cpu"), "limit CPU of web/nginx to 0.25"),
        (Setting("cpu.weight", "59", "cpu"), "give web/nginx a CPU weight of 59"),
        (Setting("pids.max", "10", "pids"), "limit web/nginx to 10 processes"),
        (Setting("cpuset.cpus", "0-1", "cpuset"), "keep web/nginx on the CPUs 0-1"),
        (Setting("rdma.max", "mlx hca_handle=2", "rdma"), "set rdma.max of web/nginx to mlx hca_handle=2"),
        (Setting("cpu.max", "strange", "cpu"), "limit CPU of web/nginx to 0"),
    ],
)
def test_words(setting: Setting, says: str) -> None:
    assert words(setting, "web/nginx") == says


@pytest.mark.parametrize(
    ("value", "says"), [("1024", "1Ki"), (str(1 << 30), "1Gi"), ("1000", "1000 bytes"), ("max", "max"), ("0", "0")]
)
def test_size(value: str, says: str) -> None:
    assert size(value) == says


def test_nothing_is_lost_where_every_controller_is() -> None:
    assert lost(EVERYTHING, ALL) == []
    assert keep(EVERYTHING, ALL) == EVERYTHING


def test_what_is_lost_without_memory_and_cpu() -> None:
    offered = ALL - {"memory", "cpu"}
    assert [setting.file for setting in lost(EVERYTHING, offered)] == [
        "cpu.weight",
        "cpu.max",
        "memory.max",
        "memory.swap.max",
        "memory.high",
    ]
    kept = keep(EVERYTHING, offered)
    assert kept.memory is None
    assert kept.cpu == Cpu(cpus="0")
    assert kept.unified == {"hugetlb.2MB.max": "0", "cgroup.max.depth": "1"}
    assert lost(kept, offered) == []


def test_without_any_controller_nothing_is_left_but_cgroup_itself() -> None:
    assert keep(EVERYTHING, frozenset()) == Resources(unified={"cgroup.max.depth": "1"})


@pytest.mark.parametrize(
    "resources",
    [
        Resources(),
        Resources(cpu=Cpu(shares=2)),
        Resources(memory=Memory(limit=-1), pids=Pids(limit=-1), cpu=Cpu(quota=-1)),
        Resources(unified={"memory.oom.group": "1", "cgroup.max.depth": "1"}),
    ],
)
def test_what_limits_nothing_is_not_missed(resources: Resources) -> None:
    assert lost(resources, frozenset()) == []


V1 = "35 31 0:32 / /sys/fs/cgroup/x rw - cgroup cgroup rw,{name}\n"


@pytest.mark.parametrize(
    ("controller", "mountinfo", "proc_cgroups", "says"),
    [
        ("memory", V1.format(name="memory"), "memory 4 1 1\n", V1_DO),
        ("cpu", V1.format(name="cpu,cpuacct"), "", V1_DO),
        ("io", V1.format(name="blkio"), "", V1_DO),
        ("cpu", V1.format(name="cpuset"), "", "this kernel"),
        ("memory", "", "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t0\n", "cgroup_enable=memory"),
        ("memory", "", "memory\t0\t1\t1\n", "this kernel"),
    ],
)
def test_remedy(controller: str, mountinfo: str, proc_cgroups: str, says: str) -> None:
    assert says in remedy(controller, mountinfo, proc_cgroups)
