"""Limits as the OCI runtime spec writes them (``linux.resources``): what a plan's cgroup part is compiled from.

Source: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md
"""

from typing import Literal

from msgspec import Struct, field


class Memory(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """Bytes; -1 is no limit. ``swap`` is memory plus swap, as in cgroup v1; from ``kernel`` on, only v1 has it.

    ``check_before_update`` is for who changes a limit: a new cgroup uses nothing yet.
    """

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    check_before_update: bool = False
    kernel: int | None = None
    kernel_tcp: int | None = field(default=None, name="kernelTCP")
    swappiness: int | None = None
    disable_oom_killer: bool = field(default=False, name="disableOOMKiller")
    use_hierarchy: bool = True


class Cpu(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """``shares`` are v1's (2 to 262144, 1024 is one CPU's worth); ``quota`` and ``period`` are microseconds.

    ``idle`` 1 is SCHED_IDLE for the whole cgroup; real-time bandwidth only v1 has.
    """

    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    burst: int | None = None
    cpus: str = ""
    mems: str = ""
    idle: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None


class Pids(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """How many tasks may live in the cgroup; 0 or below is no limit."""

    limit: int = 0


class ThrottleDevice(Struct, forbid_unknown_fields=True, frozen=True):
    """A rate for one block device: bytes or operations per second."""

    major: int
    minor: int
    rate: int


class WeightDevice(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """The weight, 10 to 1000, that counts for one block device."""

    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class BlockIO(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """``weight`` is 10 to 1000, as in v1's blkio; a ``leaf_weight`` only v1 has."""

    weight: int | None = None
    leaf_weight: int | None = None
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
    major: int | None = None
    minor: int | None = None
    access: str = ""


class HugepageLimit(Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """How many bytes of huge pages of one size (``2MB``) may be used."""

    page_size: str
    limit: int


class Rdma(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """How many handles and objects of one RDMA device may be open; None is no limit."""

    hca_handles: int | None = None
    hca_objects: int | None = None


class InterfacePriority(Struct, forbid_unknown_fields=True, frozen=True):
    """The priority of what is sent over one interface."""

    name: str
    priority: int


class Network(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """v1's net_cls and net_prio, which v2 has not."""

    class_id: int | None = field(default=None, name="classID")
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
