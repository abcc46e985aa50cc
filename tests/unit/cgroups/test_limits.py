import re

import msgspec
import pytest

from minirt.cgroups.limits import Setting, limits, linear, quadratic
from minirt.cgroups.resources import (
    BlockIO,
    Cpu,
    HugepageLimit,
    InterfacePriority,
    Memory,
    Network,
    Pids,
    Rdma,
    Resources,
    ThrottleDevice,
    WeightDevice,
)
from minirt.errors import InvalidInput, Unsupported

MI = 1024 * 1024


def written(resources: Resources) -> dict[str, str]:
    settings = limits(resources)
    assert len({setting.file for setting in settings}) == len(settings)
    return {setting.file: setting.value for setting in settings}


def shares_of(milli_cpu: int) -> int:
    return max(2, milli_cpu * 1024 // 1000)


@pytest.mark.parametrize(
    ("milli_cpu", "of_a_pod", "of_a_container"),
    [
        (0, 1, 1),
        (10, 1, 4),
        (50, 2, 11),
        (100, 4, 17),
        (250, 10, 35),
        (500, 20, 59),
        (1000, 39, 100),
        (2000, 79, 174),
        (4000, 157, 303),
        (8000, 313, 532),
    ],
)
def test_weight_of_shares(milli_cpu: int, of_a_pod: int, of_a_container: int) -> None:
    assert linear(shares_of(milli_cpu)) == of_a_pod
    assert quadratic(shares_of(milli_cpu)) == of_a_container


@pytest.mark.parametrize("weight", [linear, quadratic])
def test_weight_stays_within_the_kernels_range(weight) -> None:
    assert (weight(2), weight(262144), weight(10**9)) == (1, 10000, 10000)
    values = [weight(shares) for shares in range(2, 262145, 997)]
    assert values == sorted(values)


def test_linear_weight_is_taken_where_asked_for() -> None:
    assert limits(Resources(cpu=Cpu(shares=1024)), linear) == [Setting("cpu.weight", "39", "cpu")]


@pytest.mark.parametrize(
    ("cpu", "files"),
    [
        (Cpu(quota=50000, period=100000), {"cpu.max": "50000 100000"}),
        (Cpu(quota=25000), {"cpu.max": "25000 100000"}),
        (Cpu(quota=-1), {"cpu.max": "max 100000"}),
        (Cpu(period=50000), {"cpu.max": "max 50000"}),
        (Cpu(quota=50000, burst=20000), {"cpu.max": "50000 100000", "cpu.max.burst": "20000"}),
        (Cpu(shares=256), {"cpu.weight": "35"}),
        (Cpu(shares=0, quota=0, period=0, burst=0), {}),
        (Cpu(cpus="0-2,5", mems="0"), {"cpuset.cpus": "0-2,5", "cpuset.mems": "0"}),
    ],
)
def test_cpu(cpu: Cpu, files: dict[str, str]) -> None:
    assert written(Resources(cpu=cpu)) == files


@pytest.mark.parametrize(
    ("memory", "files"),
    [
        (Memory(limit=64 * MI), {"memory.max": "67108864"}),
        (Memory(limit=-1), {"memory.max": "max", "memory.swap.max": "max"}),
        (Memory(limit=64 * MI, swap=64 * MI), {"memory.max": "67108864", "memory.swap.max": "0"}),
        (Memory(limit=64 * MI, swap=96 * MI), {"memory.max": "67108864", "memory.swap.max": "33554432"}),
        (Memory(limit=64 * MI, swap=-1), {"memory.max": "67108864", "memory.swap.max": "max"}),
        (Memory(swap=-1), {"memory.swap.max": "max"}),
        (Memory(reservation=32 * MI), {"memory.low": "33554432"}),
        (Memory(limit=64 * MI, reservation=64 * MI), {"memory.max": "67108864", "memory.low": "67108864"}),
        (Memory(limit=0, swap=0, reservation=0), {}),
        (Memory(reservation=-1), {}),
    ],
)
def test_memory(memory: Memory, files: dict[str, str]) -> None:
    assert written(Resources(memory=memory)) == files


@pytest.mark.parametrize(("limit", "value"), [(100, "100"), (0, "max"), (-1, "max")])
def test_pids(limit: int, value: str) -> None:
    assert limits(Resources(pids=Pids(limit=limit))) == [Setting("pids.max", value, "pids")]


def test_io_weight_and_one_line_a_device() -> None:
    first, second = ThrottleDevice(8, 0, 1048576), ThrottleDevice(8, 16, 0)
    block = BlockIO(weight=500, throttle_read_bps_device=(first, second), throttle_write_iops_device=(first,))
    assert limits(Resources(block_io=block)) == [
        Setting("io.weight", "4950", "io"),
        Setting("io.max", "8:0 rbps=1048576 wiops=1048576", "io"),
        Setting("io.max", "8:16 rbps=max", "io"),
    ]


@pytest.mark.parametrize(("weight", "value"), [(10, "1"), (1000, "10000")])
def test_io_weight_covers_the_whole_range(weight: int, value: str) -> None:
    assert written(Resources(block_io=BlockIO(weight=weight))) == {"io.weight": value}


def test_io_weights_of_devices() -> None:
    block = BlockIO(weight_device=(WeightDevice(8, 0, 10), WeightDevice(8, 16)))
    assert limits(Resources(block_io=block)) == [Setting("io.weight", "8:0 1", "io")]


def test_huge_pages_and_rdma() -> None:
    asked = Resources(
        hugepage_limits=(HugepageLimit("2MB", 4194304), HugepageLimit("1GB", 0)),
        rdma={"mlx5_1": Rdma(hca_handles=3), "mlx5_2": Rdma(hca_handles=0, hca_objects=7)},
    )
    assert limits(asked) == [
        Setting("hugetlb.2MB.max", "4194304", "hugetlb"),
        Setting("hugetlb.1GB.max", "0", "hugetlb"),
        Setting("rdma.max", "mlx5_1 hca_handle=3 hca_object=max", "rdma"),
        Setting("rdma.max", "mlx5_2 hca_handle=0 hca_object=7", "rdma"),
    ]


def test_idle_comes_after_the_weight_that_it_replaces() -> None:
    assert [one.file for one in limits(Resources(cpu=Cpu(shares=2, idle=1)))] == ["cpu.weight", "cpu.idle"]


@pytest.mark.parametrize(
    ("resources", "field"),
    [
        (Resources(memory=Memory(kernel=1)), "linux.resources.memory.kernel"),
        (Resources(memory=Memory(kernel_tcp=1)), "linux.resources.memory.kernelTCP"),
        (Resources(memory=Memory(swappiness=0)), "linux.resources.memory.swappiness"),
        (Resources(memory=Memory(disable_oom_killer=True)), "linux.resources.memory.disableOOMKiller"),
        (Resources(cpu=Cpu(realtime_runtime=1)), "linux.resources.cpu.realtimeRuntime"),
        (Resources(cpu=Cpu(realtime_period=1)), "linux.resources.cpu.realtimePeriod"),
        (Resources(block_io=BlockIO(leaf_weight=10)), "linux.resources.blockIO.leafWeight"),
        (
            Resources(block_io=BlockIO(weight_device=(WeightDevice(8, 0, leaf_weight=10),))),
            "linux.resources.blockIO.weightDevice[0].leafWeight",
        ),
        (Resources(network=Network(class_id=1)), "linux.resources.network.classID"),
        (Resources(network=Network(priorities=(InterfacePriority("lo", 1),))), "linux.resources.network.priorities"),
    ],
)
def test_what_only_v1_has_is_refused_by_its_place(resources: Resources, field: str) -> None:
    with pytest.raises(Unsupported, match=re.escape(f"cannot use {field}: cgroup v2 has no such limit")):
        limits(resources)


def test_what_says_nothing_passes() -> None:
    text = b"""{
        "memory": {"kernel": -1, "kernelTCP": 0, "swappiness": -1, "disableOOMKiller": false, "useHierarchy": true,
                   "checkBeforeUpdate": true},
        "cpu": {"shares": 0, "realtimeRuntime": 0, "realtimePeriod": 0, "idle": 0}, "blockIO": {"leafWeight": 0},
        "hugepageLimits": [], "rdma": {}, "network": {"classID": 0}, "pids": {}
    }"""
    assert written(msgspec.json.decode(text, type=Resources)) == {"pids.max": "max"}


def test_unified_is_last_as_it_is_and_a_write_a_line() -> None:
    unified = {"io.max": "8:0 rbps=1\n8:16 rbps=2", "memory.high": "9", "cgroup.max.depth": "3"}
    assert limits(Resources(memory=Memory(limit=10), unified=unified)) == [
        Setting("memory.max", "10", "memory"),
        Setting("io.max", "8:0 rbps=1", "io"),
        Setting("io.max", "8:16 rbps=2", "io"),
        Setting("memory.high", "9", "memory"),
        Setting("cgroup.max.depth", "3", ""),
    ]


@pytest.mark.parametrize(
    ("file", "value", "initial"),
    [
        ("memory.max", "max", True),
        ("cpu.max", "max 50000", True),
        ("memory.high", "max", True),
        ("memory.low", "max", False),
        ("memory.max", "4096", False),
        ("cpu.weight", "100", True),
    ],
)
def test_what_a_new_cgroup_has_already(file: str, value: str, initial: bool) -> None:
    assert Setting(file, value, "").is_initial is initial


def test_nothing_asked_nothing_written() -> None:
    assert limits(Resources()) == []


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        (Resources(memory=Memory(limit=64, swap=63)), "memory alone may take 64 bytes"),
        (Resources(memory=Memory(swap=64)), "memory has no limit"),
        (Resources(memory=Memory(limit=-1, swap=64)), "memory has no limit"),
        (Resources(memory=Memory(limit=64, reservation=65)), "the limit is less"),
        (Resources(memory=Memory(limit=-2)), "negative"),
        (Resources(cpu=Cpu(quota=999)), "no less than 1000"),
        (Resources(cpu=Cpu(quota=2000, period=999)), "1000 to 1000000"),
        (Resources(cpu=Cpu(period=1000001)), "1000 to 1000000"),
        (Resources(cpu=Cpu(quota=2000, burst=2001)), "outside of the quota"),
        (Resources(cpu=Cpu(burst=1)), "outside of the quota"),
        (Resources(block_io=BlockIO(weight=9)), "10 to 1000"),
        (Resources(hugepage_limits=(HugepageLimit("../2MB", 1),)), "no page size"),
        (Resources(rdma={"a b": Rdma()}), "no device's name"),
        (Resources(unified={"memory": "1"}), "no name of a cgroup v2 file"),
        (Resources(unified={"../memory.max": "1"}), "no name of a cgroup v2 file"),
        (Resources(unified={".max": "1"}), "no name of a cgroup v2 file"),
        (Resources(unified={"cgroup.procs": "1"}), "no limit"),
    ],
)
def test_contradictions_are_refused(resources: Resources, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        limits(resources)
