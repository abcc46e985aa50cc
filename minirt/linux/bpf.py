"""bpf(2): load a device filter and attach it to a cgroup.

Only that: programs of this one kind need no map, no helper and no type information.

Source: bpf(2), and ``union bpf_attr`` in the kernel's include/uapi/linux/bpf.h.
"""

import errno
import struct

from minirt import journal
from minirt.linux._native import ffi, lib
from minirt.linux.mount import checked

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2

INSTRUCTION_BYTES = 8
TRIES = 20
LOG_BYTES = 1 << 16
LICENSE = b"Apache-2.0"
NAME = b"minirt_devices"
"""What ``bpftool prog`` shows."""

LOAD = struct.Struct("=IIQQIIQII16s")
"""prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags, prog_name."""

ATTACH = struct.Struct("=IIII")
"""target_fd, attach_bpf_fd, attach_type, attach_flags."""


def prog_load(instructions: bytes) -> int:
    """Return a descriptor (close-on-exec) of a BPF_PROG_TYPE_CGROUP_DEVICE program.

    The verifier's log costs, so it is asked for in a second try, when the first has failed.

    Raises OSError: EPERM (no CAP_BPF and no CAP_SYS_ADMIN, or RLIMIT_MEMLOCK before Linux 5.11), EINVAL or EACCES
        (the verifier refused, its log is the error's file name; with no log, the kernel knows no such programs),
        E2BIG, ENOSYS (no CONFIG_BPF_SYSCALL).
    """
    try:
        return _load_undisturbed(instructions, 0)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise
    return _load_undisturbed(instructions, LOG_BYTES)


def _load_undisturbed(instructions: bytes, log_bytes: int) -> int:
    """Try again where a signal, the end of another child for one, has interrupted the verifier (EAGAIN)."""
    for _ in range(TRIES - 1):
        try:
            return _load_step(instructions, log_bytes)
        except BlockingIOError:
            continue
    return _load_step(instructions, log_bytes)


def _load_step(instructions: bytes, log_bytes: int) -> int:
    def load(command: int, kind: int, count: int) -> int:
        program, license_ = ffi.from_buffer("char[]", instructions), ffi.new("char[]", LICENSE)
        log = ffi.new("char[]", log_bytes or 1)
        where = _address(log) if log_bytes else 0
        level = int(log_bytes > 0)
        attributes = LOAD.pack(kind, count, _address(program), _address(license_), level, log_bytes, where, 0, 0, NAME)
        result = lib.rt_bpf(command, attributes, LOAD.size)
        return checked(result, ffi.string(log).decode(errors="replace").strip())

    count = len(instructions) // INSTRUCTION_BYTES
    return journal.step("bpf", load, BPF_PROG_LOAD, BPF_PROG_TYPE_CGROUP_DEVICE, count)


def prog_attach(cgroup_fd: int, program_fd: int) -> None:
    """Have a device program asked about every open and mknod in a cgroup and below it; it lives as long as the cgroup.

    With BPF_F_ALLOW_MULTI programs add up: each one of this cgroup and of those above must say yes. Without the flag
    a cgroup below could attach none (a container manager in the container would fail), and where one above (systemd's
    DevicePolicy=) has the flag this could not be without.

    Raises OSError: EPERM (no right to, or a cgroup above has a program that does not allow more), EBADF (no cgroup2).
    """
    journal.step("bpf", _attach, BPF_PROG_ATTACH, cgroup_fd, program_fd, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI)


def _attach(command: int, cgroup_fd: int, program_fd: int, kind: int, flags: int) -> None:
    checked(lib.rt_bpf(command, ATTACH.pack(cgroup_fd, program_fd, kind, flags), ATTACH.size))


def _address(memory: object) -> int:
    return int(ffi.cast("uintptr_t", memory))
