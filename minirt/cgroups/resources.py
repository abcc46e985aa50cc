"""Limits as the OCI runtime spec writes them (``linux.resources``): what a plan's cgroup part is compiled from.

Source: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md
"""

from typing import Literal

from msgspec import Struct, field


class Memory(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """Bytes; -1 is no limit. ``swap`` is memory plus swap, as in cgroup v1."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None


class Cpu(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """``shares`` are v1's (2 to 262144, 1024 is one CPU's worth); ``quota`` and ``period`` are microseconds."""

    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    burst: int | None = None
    cpus: str = ""
    mems: str = ""


class Pids(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """How many tasks may live in the cgroup; 0 or below is no limit."""

    limit: int = 0


class ThrottleDevice(Struct, forbid_unknown_fields=True, frozen=True):
    """A rate for one block device: bytes or operations per second."""

    major: int
    minor: int
    rate: int


class BlockIO(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """``weight`` is 10 to 1000, as in v1's blkio."""

    weight: int | None = None
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


class Resources(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """All limits of one cgroup. ``unified`` are v2 files and their values, written last and as they are.

    Of ``devices`` the last rule that fits decides; no rules at all are no filter.
    """

    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = field(default=None, name="blockIO")
    unified: dict[str, str] = field(default_factory=dict)
    devices: tuple[DeviceRule, ...] = ()
