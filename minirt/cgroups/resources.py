"""Limits as the OCI runtime spec writes them (``linux.resources``): what a plan's cgroup part is compiled from.

Source: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md
"""

from typing import Literal

from msgspec import Struct, field

from minirt.linux.integers import I64, U16, U32, U64, AnyNumber, Major, Minor


class Memory(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """Bytes; -1 is no limit. ``swap`` is memory plus swap, as in cgroup v1; from ``kernel`` on, only v1 has it.

    ``check_before_update`` is for who changes a limit: a new cgroup uses nothing yet.
    """

    limit: I64 | None = None
    reservation: I64 | None = None
    swap: I64 | None = None
    check_before_update: bool = False
    kernel: I64 | None = None
    kernel_tcp: I64 | None = field(default=None, name="kernelTCP")
    swappiness: I64 | None = None
    disable_oom_killer: bool = field(default=False, name="disableOOMKiller")
    use_hierarchy: bool = True


class Cpu(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """``shares`` are v1's (2 to 262144, 1024 is one CPU's worth); ``quota`` and ``period`` are microseconds.

    ``idle`` 1 is SCHED_IDLE for the whole cgroup; real-time bandwidth only v1 has.
    """

    shares: U64 | None = None
    quota: I64 | None = None
    period: U64 | None = None
    burst: U64 | None = None
    cpus: str = ""
    mems: str = ""
    idle: I64 | None = None
    realtime_runtime: I64 | None = None
    realtime_period: U64 | None = None


class Pids(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """How many tasks may live in the cgroup; 0 or below is no limit."""

    limit: I64 = 0


class ThrottleDevice(Struct, forbid_unknown_fields=True, frozen=True):
    """A rate for one block device: bytes or operations per second."""

    major: Major
    minor: Minor
    rate: U64


class WeightDevice(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """The weight, 10 to 1000, that counts for one block device."""

    major: Major
    minor: Minor
    weight: U16 | None = None
    leaf_weight: U16 | None = None


class BlockIO(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """``weight`` is 10 to 1000, as in v1's blkio; a ``leaf_weight`` only v1 has."""

    weight: U16 | None = None
    leaf_weight: U16 | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = field(default=(), name="throttleReadIOPSDevice")
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = field(default=(), name="throttleWriteIOPSDevice")


class DeviceRule(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """May devices be used: of a ``type`` (b, c, or a for both), with these numbers (-1 or none is any)?

    ``access`` is one or more of r (read), w (write), m (mknod).
    """

    allow: bool
    type: Literal["a", "b", "c"] = "a"
    major: AnyNumber | None = None
    minor: AnyNumber | None = None
    access: str = ""


class HugepageLimit(Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """How many bytes of huge pages of one size (``2MB``) may be used."""

    page_size: str
    limit: U64


class Rdma(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """How many handles and objects of one RDMA device may be open; None is no limit."""

    hca_handles: U32 | None = None
    hca_objects: U32 | None = None


class InterfacePriority(Struct, forbid_unknown_fields=True, frozen=True):
    """The priority of what is sent over one interface."""

    name: str
    priority: U32


class Network(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """v1's net_cls and net_prio, which v2 has not."""

    class_id: U32 | None = field(default=None, name="classID")
    priorities: tuple[InterfacePriority, ...] = ()


class Resources(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """All limits of one cgroup. ``unified`` are v2 files and their values, written last and as they are.

    Of ``devices`` the last rule that fits decides; no rules at all are no filter.
    """

    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = field(default=None, name="blockIO")
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    rdma: dict[str, Rdma] = field(default_factory=dict)
    network: Network | None = None
    unified: dict[str, str] = field(default_factory=dict)
    devices: tuple[DeviceRule, ...] = ()
