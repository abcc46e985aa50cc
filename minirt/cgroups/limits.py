"""Limits: what the OCI runtime spec asks for, as files of cgroup v2 and what to write to them. Pure.

The spec still speaks cgroup v1. Where v1 and v2 differ, v2 is what is written:

    shares   2 … 262144, 1024 a CPU's worth   ->  cpu.weight   1 … 10000, 100 the default
    quota, period (µs)                        ->  cpu.max      "QUOTA PERIOD", quota "max" for none
    swap     memory and swap together         ->  memory.swap.max   swap alone
    blkio weight  10 … 1000                   ->  io.weight    1 … 10000
    hugepageLimits, rdma                      ->  hugetlb.2MB.max, rdma.max

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html and
https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups
"""

import re
from collections.abc import Callable

from msgspec import Struct

from minirt.cgroups import v1only
from minirt.cgroups.resources import BlockIO, Cpu, HugepageLimit, Memory, Pids, Rdma, Resources
from minirt.errors import InvalidInput

DEFAULT_PERIOD_US = 100_000
INITIAL_WEIGHT = "100"
MIN_SHARES, MAX_SHARES = 2, 262_144
MIN_WEIGHT, MAX_WEIGHT = 1, 10_000
LIFECYCLE_FILES = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "cgroup.type", "cgroup.kill")

PAGE_SIZE = "[1-9][0-9]*[KMG]B"

Weight = Callable[[int], int]


class Setting(Struct, frozen=True):
    """One write: ``value`` into ``file`` of a cgroup. ``controller`` offers the file ("" for cgroup.* itself)."""

    file: str
    value: str
    controller: str

    @property
    def is_initial(self) -> bool:
        """Say whether a new cgroup has this value already: it limits nothing."""
        if self.file == "cpu.weight":
            return self.value == INITIAL_WEIGHT
        return self.file.endswith((".max", ".high")) and self.value.split(" ")[0] == "max"


def quadratic(shares: int) -> int:
    """Return the cpu.weight of a container: 1024 shares become 100, as runc 1.3.2 and crun 1.23 have it."""
    if shares <= MIN_SHARES:
        return MIN_WEIGHT
    if shares >= MAX_SHARES:
        return MAX_WEIGHT
    import math

    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def linear(shares: int) -> int:
    """Return the cpu.weight of a pod or a QoS group, as the kubelet has it: 1024 shares become 39."""
    bounded = min(max(shares, MIN_SHARES), MAX_SHARES)
    return 1 + (bounded - 2) * 9999 // 262_142


def limits(resources: Resources, weight: Weight = quadratic) -> list[Setting]:
    """Return what to write for ``resources``, in order; ``unified`` comes last and so has the last word.

    As in every OCI runtime, 0 is "not given" for each number but a throttle's rate.

    Raises:
        InvalidInput: two limits contradict each other, or the kernel would refuse one whatever the machine.
        Unsupported: one that only cgroup v1 has.
    """
    v1only.refuse(resources)
    settings: list[Setting] = []
    if resources.cpu:
        settings += _cpu(resources.cpu, weight) + _cpuset(resources.cpu)
    if resources.memory:
        settings += _memory(resources.memory)
    if resources.pids:
        settings += _pids(resources.pids)
    if resources.block_io:
        settings += _io(resources.block_io)
    settings += [_hugepages(one) for one in resources.hugepage_limits]
    settings += [_rdma(device, limit) for device, limit in resources.rdma.items()]
    return settings + _unified(resources.unified)


def _cpu(cpu: Cpu, weight: Weight) -> list[Setting]:
    settings = []
    if cpu.shares:
        settings.append(Setting("cpu.weight", str(weight(cpu.shares)), "cpu"))
    quota, period = cpu.quota or 0, cpu.period or DEFAULT_PERIOD_US
    if cpu.quota or cpu.period:
        _check_bandwidth(quota, period)
        settings.append(Setting("cpu.max", f"{quota if quota > 0 else 'max'} {period}", "cpu"))
    if cpu.burst:
        if not 0 < cpu.burst <= quota:
            raise InvalidInput(f"use a CPU burst of {cpu.burst} µs", f"it lies outside of the quota, {quota} µs")
        settings.append(Setting("cpu.max.burst", str(cpu.burst), "cpu"))
    if cpu.idle:  # after the weight: one that is idle takes none
        settings.append(Setting("cpu.idle", str(cpu.idle), "cpu"))
    return settings


def _check_bandwidth(quota: int, period: int) -> None:
    if not 1000 <= period <= 1_000_000:
        raise InvalidInput(f"use a CPU period of {period} µs", "the kernel takes 1000 to 1000000 µs")
    if 0 < quota < 1000:
        raise InvalidInput(f"use a CPU quota of {quota} µs", "the kernel takes no less than 1000 µs, 0.01 of a CPU")


def _cpuset(cpu: Cpu) -> list[Setting]:
    asked = {"cpuset.cpus": cpu.cpus, "cpuset.mems": cpu.mems}
    return [Setting(file, value, "cpuset") for file, value in asked.items() if value]


def _memory(memory: Memory) -> list[Setting]:
    limit, reservation = memory.limit or 0, memory.reservation or 0
    settings = []
    if limit:
        settings.append(Setting("memory.max", _bytes_or_max(limit), "memory"))
    if memory.swap or limit == -1:
        settings.append(Setting("memory.swap.max", _swap(limit, memory.swap or -1), "memory"))
    if reservation not in (0, -1):  # v1's -1 is "reclaim as you like", what v2 does when memory.low is not written
        if 0 < limit < reservation:
            raise InvalidInput(f"reserve {reservation} bytes of memory", f"the limit is less, {limit} bytes")
        settings.append(Setting("memory.low", _bytes_or_max(reservation), "memory"))
    return settings


def _swap(limit: int, swap: int) -> str:
    """Return swap alone, from ``swap`` that is memory plus swap."""
    if swap == -1:
        return "max"
    if limit <= 0:
        raise InvalidInput(f"limit memory and swap to {swap} bytes", "memory has no limit", "limit memory as well")
    if swap < limit:
        why = f"memory alone may take {limit} bytes"
        raise InvalidInput(f"limit memory and swap to {swap} bytes", why, "this limit is the sum of both")
    return str(swap - limit)


def _bytes_or_max(number: int) -> str:
    if number < -1:
        raise InvalidInput(f"use {number} as a number of bytes", "it is negative", "-1 is no limit")
    return "max" if number == -1 else str(number)


def _pids(pids: Pids) -> list[Setting]:
    return [Setting("pids.max", str(pids.limit) if pids.limit > 0 else "max", "pids")]


def _io(block: BlockIO) -> list[Setting]:
    settings = []
    if block.weight:
        settings.append(Setting("io.weight", str(_io_weight(block.weight)), "io"))
    for own in block.weight_device:
        if own.weight:
            settings.append(Setting("io.weight", f"{own.major}:{own.minor} {_io_weight(own.weight)}", "io"))
    rates: dict[tuple[int, int], list[str]] = {}
    for key, devices in (
        ("rbps", block.throttle_read_bps_device),
        ("wbps", block.throttle_write_bps_device),
        ("riops", block.throttle_read_iops_device),
        ("wiops", block.throttle_write_iops_device),
    ):
        for device in devices:
            rates.setdefault((device.major, device.minor), []).append(f"{key}={device.rate or 'max'}")
    return settings + [Setting("io.max", f"{a}:{b} {' '.join(all_)}", "io") for (a, b), all_ in rates.items()]


def _io_weight(weight: int) -> int:
    if not 10 <= weight <= 1000:
        raise InvalidInput(f"use an I/O weight of {weight}", "it is not within 10 to 1000")
    return 1 + (weight - 10) * 9999 // 990


def _hugepages(asked: HugepageLimit) -> Setting:
    if not re.fullmatch(PAGE_SIZE, asked.page_size):
        why = "it is no page size"
        raise InvalidInput(f"limit huge pages of {asked.page_size!r}", why, "such are 64KB, 2MB, 1GB")
    return Setting(f"hugetlb.{asked.page_size}.max", str(asked.limit), "hugetlb")


def _rdma(device: str, asked: Rdma) -> Setting:
    if not device or set(device) & set(" \n="):
        raise InvalidInput(
            f"limit the RDMA device {device!r}", "that is no device's name", "see ls /sys/class/infiniband"
        )
    handles, objects = ("max" if number is None else number for number in (asked.hca_handles, asked.hca_objects))
    return Setting("rdma.max", f"{device} hca_handle={handles} hca_object={objects}", "rdma")


def _unified(unified: dict[str, str]) -> list[Setting]:
    """Return the user's own files; a value of several lines (io.max) is one write a line, as the kernel wants."""
    settings = []
    for file, value in unified.items():
        controller, dot, _ = file.partition(".")
        if not (controller and dot) or "/" in file:
            why = "it is no name of a cgroup v2 file"
            raise InvalidInput(f"set {file!r} of a cgroup", why, "such names are memory.high, hugetlb.2MB.max")
        if file in LIFECYCLE_FILES:
            raise InvalidInput(f"set {file} of a cgroup", "it is no limit: minirt itself needs it to run containers")
        owner = "" if controller == "cgroup" else controller
        settings += [Setting(file, line, owner) for line in value.splitlines() or [""]]
    return settings
