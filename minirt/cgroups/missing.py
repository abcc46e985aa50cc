"""Controllers that a machine lacks: found before anything starts, with what to do about it.

cgroup v2 offers a controller only if cgroup v1 has not taken it, the boot line has not disabled it, and the kernel was
built with it. A limit that needs a missing controller is refused (``check``), or with ``--best-effort-limits`` left
out with a warning (``without_missing``).
"""

from pathlib import Path
from typing import TypeVar

import msgspec

from minirt.cgroups import tree
from minirt.cgroups.limits import Setting, limits
from minirt.cgroups.resources import Cpu, Resources
from minirt.errors import ControllerMissing

T = TypeVar("T")

V1_NAMES = {"io": "blkio"}
V1_DO = "it is mounted as cgroup v1; boot with systemd.unified_cgroup_hierarchy=1, or use vm/run"
WORDS = {
    "cpu.max": "limit CPU of {subject} to {cpus:g}",
    "cpu.weight": "give {subject} a CPU weight of {value}",
    "memory.max": "limit memory of {subject} to {size}",
    "memory.low": "keep {size} of memory for {subject}",
    "memory.swap.max": "limit swap of {subject} to {size}",
    "pids.max": "limit {subject} to {value} processes",
    "cpuset.cpus": "keep {subject} on the CPUs {value}",
    "cpuset.mems": "keep {subject} on the memory nodes {value}",
    "io.max": "limit I/O of {subject} to {value}",
    "io.weight": "give {subject} an I/O weight of {value}",
}


def check(resources: Resources, subject: str) -> None:
    """Refuse limits that this machine cannot keep; ``subject`` is whose they are (``web/nginx``).

    Raises:
        ControllerMissing: the first limit whose controller is missing, and why it is.
        InvalidInput: the limits contradict each other.
    """
    for error in errors(resources, subject):
        raise error


def without_missing(resources: Resources, subject: str) -> tuple[Resources, list[str]]:
    """Return ``resources`` without what this machine cannot keep, and a warning for each limit that is lost.

    What is left out without a warning limits nothing: so this is right to call after a ``check`` that passed, too.
    """
    offered = tree.find().controllers()
    warnings = [str(error) for error in errors(resources, subject)]
    return keep(resources, offered), warnings


def errors(resources: Resources, subject: str) -> list[ControllerMissing]:
    """Return an error for each limit whose controller this machine lacks."""
    found = tree.find()
    settings = lost(resources, found.controllers())
    return [missing(setting.controller, found, words(setting, subject)) for setting in settings]


def lost(resources: Resources, offered: frozenset[str]) -> list[Setting]:
    """Return the settings that somebody wished for and that the controllers in ``offered`` cannot do. Pure."""
    return [one for one in limits(resources) if one.controller and one.controller not in offered and limiting(one)]


def limiting(setting: Setting) -> bool:
    """Say whether a setting is a wish of somebody's: not what a cgroup has anyway, or what everybody is given.

    Kubernetes gives a weight of 1 to those who request nothing, and oom.group only says how a limit is enforced.
    """
    everybodys = setting.file == "memory.oom.group" or (setting.file, setting.value) == ("cpu.weight", "1")
    return not (setting.is_initial or everybodys)


def keep(resources: Resources, offered: frozenset[str]) -> Resources:
    """Return the part of ``resources`` that the controllers in ``offered`` can do; devices need none. Pure."""
    cpu = resources.cpu or Cpu()
    bandwidth = cpu if "cpu" in offered else Cpu(cpus=cpu.cpus, mems=cpu.mems)
    kept = bandwidth if "cpuset" in offered else msgspec.structs.replace(bandwidth, cpus="", mems="")
    return Resources(
        memory=resources.memory if "memory" in offered else None,
        cpu=kept if kept != Cpu() else None,
        pids=resources.pids if "pids" in offered else None,
        block_io=resources.block_io if "io" in offered else None,
        unified={
            file: value for file, value in resources.unified.items() if file.split(".")[0] in offered | {"cgroup"}
        },
        devices=resources.devices,
    )


def missing(controller: str, found: tree.Tree, what: str = "limit anything") -> ControllerMissing:
    """Return the error for a controller that ``found`` does not offer; ``what`` needs it."""
    why = f"the {controller} controller is not in {found.mount}/cgroup.controllers"
    mountinfo, cgroups = Path("/proc/self/mountinfo").read_text(), Path("/proc/cgroups").read_text()
    return ControllerMissing(what, why, remedy(controller, mountinfo, cgroups))


def remedy(controller: str, mountinfo: str, proc_cgroups: str) -> str:
    """Return why a controller is missing and what to do, from the texts of /proc/self/mountinfo and /proc/cgroups."""
    name = V1_NAMES.get(controller, controller)
    if any(fstype == "cgroup" and name in options.split(",") for _, fstype, options in tree.mounts(mountinfo)):
        return V1_DO
    rows = [line.split() for line in proc_cgroups.splitlines()]
    if any(row[0] == name and row[-1] == "0" for row in rows if row):
        return f"it is disabled; boot with cgroup_enable={name}, or use vm/run"
    return "this kernel, or the container that this runs in, does not offer it; use vm/run"


def words(setting: Setting, subject: str) -> str:
    """Return what a setting does to ``subject``, in a person's words."""
    pattern = WORDS.get(setting.file, "set {file} of {subject} to {value}")
    quota, _, period = setting.value.partition(" ")
    cpus = int(quota) / int(period) if setting.file == "cpu.max" and quota.isdigit() and period.isdigit() else 0
    return pattern.format(file=setting.file, subject=subject, value=setting.value, size=size(setting.value), cpus=cpus)


def size(value: str) -> str:
    """Return a number of bytes as a person writes it: 67108864 is 64Mi."""
    if not value.isdigit() or value == "0":
        return value
    number = int(value)
    for power, unit in ((30, "Gi"), (20, "Mi"), (10, "Ki")):
        if number % (1 << power) == 0:
            return f"{number >> power}{unit}"
    return f"{number} bytes"
