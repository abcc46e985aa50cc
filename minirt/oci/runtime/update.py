"""``update``: other limits for a container that lives, by a document (``--resources``) and by flags.

What is not named stays: where one file of the cgroup holds two limits (cpu.max), the other is read first.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from minirt import decoding
from minirt.cgroups.limits import Setting, limits
from minirt.cgroups.resources import Cpu, Memory, Resources
from minirt.errors import Conflict, InvalidInput, StepFailed
from minirt.linux import fds
from minirt.oci.runtime.state import Place

FIELDS = {
    "memory": ("memory", "limit"),
    "memory_reservation": ("memory", "reservation"),
    "memory_swap": ("memory", "swap"),
    "cpu_period": ("cpu", "period"),
    "cpu_quota": ("cpu", "quota"),
    "cpu_share": ("cpu", "shares"),
    "cpu_burst": ("cpu", "burst"),
    "cpu_idle": ("cpu", "idle"),
    "cpuset_cpus": ("cpu", "cpus"),
    "cpuset_mems": ("cpu", "mems"),
    "pids_limit": ("pids", "limit"),
    "blkio_weight": ("blockIO", "weight"),
}
"""Where the flags belong in linux.resources."""


def update(place: Place, flags: dict[str, Any]) -> int:
    """Change the limits of a container: those of ``--resources`` (a file, or - for stdin), then those of the flags.

    Raises:
        Conflict: it does not live.
        InvalidInput: the limits make no sense, or would be below what is used and are to be checked.
        StepFailed: the kernel, or systemd, refused one.
    """
    with place.locked():
        made = place.load()
        if not made.is_alive:
            raise Conflict(f"update container {place.id}", "container not running", "start it first")
        asked = _resources(flags)
        settings = limits(_completed(asked, made.cgroup))
        if asked.cpu and asked.cpu.idle == 0:  # which says nothing of a new one
            settings.append(Setting("cpu.idle", "0", "cpu"))
        if made.scope:
            from minirt.cgroups import systemd

            systemd.set_properties(made.scope, settings)
        for setting in settings:
            _write(made.cgroup, setting)
    return 0


def _write(cgroup: str, setting: Setting) -> None:
    try:
        fds.write_file(f"{cgroup}/{setting.file}", setting.value)
    except OSError as error:
        do = f"does this machine give its cgroups the {setting.controller or 'cgroup'} controller?"
        what = f"write {setting.value} to {cgroup}/{setting.file}"
        raise StepFailed.from_os_error(what, error, do=do) from error


def _resources(flags: dict[str, Any]) -> Resources:
    source = flags["resources"]
    try:
        text = (sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()) if source else b"{}"
        plain: dict[str, Any] = decoding.from_json(text, dict[str, Any])
        for flag, (group, name) in FIELDS.items():
            if flags[flag]:
                value = flags[flag] if flag.startswith("cpuset") else int(flags[flag])
                plain[group] = (plain.get(group) or {}) | {name: value}
        return decoding.convert(plain, Resources)
    except OSError as error:
        raise InvalidInput(f"read {source}", error.strerror or str(error)) from error
    except (ValueError, TypeError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidInput("use the limits", str(error)) from error


def _completed(asked: Resources, cgroup: str) -> Resources:
    """Return the limits with what stands beside them in the same files."""
    cpu = _with_bandwidth(asked.cpu, cgroup) if asked.cpu else None
    memory = _with_limit(asked.memory, cgroup) if asked.memory else None
    if memory and memory.check_before_update:
        _check(memory, cgroup)
    return structs.replace(asked, cpu=cpu, memory=memory)


def _with_bandwidth(cpu: Cpu, cgroup: str) -> Cpu:
    if not (cpu.quota or cpu.period or cpu.burst) or (cpu.quota and cpu.period):
        return cpu
    quota, _, period = _read(cgroup, "cpu.max").partition(" ")
    if not period:
        return cpu
    now = -1 if quota == "max" else int(quota)
    return structs.replace(cpu, quota=cpu.quota or now, period=cpu.period or int(period))


def _with_limit(memory: Memory, cgroup: str) -> Memory:
    now = _read(cgroup, "memory.max")
    if memory.limit or not memory.swap or not now.isdecimal():
        return memory
    return structs.replace(memory, limit=int(now))


def _check(memory: Memory, cgroup: str) -> None:
    """Refuse a limit below what is used: the kernel would kill for it. Raises InvalidInput."""
    used = _read(cgroup, "memory.current")
    if memory.limit and used.isdecimal() and 0 < memory.limit < int(used):
        what = f"limit memory to {memory.limit} bytes, as memory.limit asks"
        raise InvalidInput(what, f"it uses {used}", "memory.checkBeforeUpdate is true")


def _read(cgroup: str, file: str) -> str:
    """Return what a cgroup's file holds; "" where there is none."""
    try:
        return Path(cgroup, file).read_text().strip()
    except OSError:
        return ""
