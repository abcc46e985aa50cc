"""What the OCI runtime spec limits and only cgroup v1 can: refused by its place in config.json, never ignored.

What says nothing passes: 0, -1 where that is "no limit", an empty object. Others write it without being asked.
Source: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups
"""

from collections.abc import Iterator

from minirt.cgroups.resources import BlockIO, Cpu, Memory, Network, Resources
from minirt.errors import Unsupported

WITH_V2 = "cgroup v2 has no such limit"


def refuse(resources: Resources) -> None:
    """Raise Unsupported for the first limit that cgroup v2 has not."""
    for field, value, do in _asked(resources):
        if value:
            raise Unsupported(f"use linux.resources.{field}", WITH_V2, do)


def _asked(resources: Resources) -> Iterator[tuple[str, object, str]]:
    """Yield (place, what is asked for, what to do instead)."""
    if resources.memory:
        yield from _memory(resources.memory)
    if resources.cpu:
        yield from _cpu(resources.cpu)
    if resources.block_io:
        yield from _io(resources.block_io)
    if resources.network:
        yield from _network(resources.network)


def _memory(memory: Memory) -> Iterator[tuple[str, object, str]]:
    yield "memory.kernel", (memory.kernel or 0) > 0, "memory.limit counts the kernel's memory, too"
    yield "memory.kernelTCP", (memory.kernel_tcp or 0) > 0, "memory.limit counts the kernel's memory, too"
    yield "memory.swappiness", memory.swappiness not in (None, -1), "limit memory.swap, or leave it out"
    yield "memory.disableOOMKiller", memory.disable_oom_killer, "lower process.oomScoreAdj, or leave it out"


def _cpu(cpu: Cpu) -> Iterator[tuple[str, object, str]]:
    yield "cpu.realtimeRuntime", cpu.realtime_runtime, "set process.scheduler, or leave it out"
    yield "cpu.realtimePeriod", cpu.realtime_period, "set process.scheduler, or leave it out"


def _io(block: BlockIO) -> Iterator[tuple[str, object, str]]:
    yield "blockIO.leafWeight", block.leaf_weight, "set blockIO.weight"
    for index, device in enumerate(block.weight_device):
        yield f"blockIO.weightDevice[{index}].leafWeight", device.leaf_weight, "set its weight"


def _network(network: Network) -> Iterator[tuple[str, object, str]]:
    yield "network.classID", network.class_id, "mark packets in nftables by their cgroup, or leave it out"
    yield "network.priorities", network.priorities, "use tc or nftables, or leave it out"
