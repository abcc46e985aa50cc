"""Device nodes of the host: all of them for a privileged container, those that are asked for, and who may use which."""

import os
import stat
from typing import Literal

from minirt.cgroups.devices import DENY_ALL
from minirt.cgroups.resources import DeviceRule
from minirt.errors import InvalidInput
from minirt.oci.spec import Device

OWN = {"pts", "shm", "mqueue", "fd", "stdin", "stdout", "stderr", "console", "ptmx", ".lxc", "hugepages"}

DEFAULT_RULES = (
    DENY_ALL,
    *(DeviceRule(True, "c", 1, minor, "rwm") for minor in (5, 3, 9, 8)),
    *(DeviceRule(True, "c", 5, minor, "rwm") for minor in (0, 1)),
)
"""docker's: zero, null, urandom, random, tty, console; what every container may use comes behind them.

Source: moby's oci/defaults.go (its rule against /dev/fuse changes nothing, and is left out)."""


def host_devices(directory: str = "/dev") -> tuple[Device, ...]:
    """Return the device nodes below /dev, but for what every container has of its own."""
    return _below(directory, OWN)


def devices_at(host: str, container: str) -> tuple[Device, ...]:
    """Return the node ``host`` as one called ``container``; of a directory, those below it.

    Raises:
        InvalidInput: there is nothing, no device, or a directory without any.
    """
    what, place = f"use the device {host}", os.path.realpath(host)
    try:
        about = os.stat(place)
    except OSError as error:
        raise InvalidInput(what, error.strerror or str(error), "name a device of the host") from error
    if node := _node(container, about):
        return (node,)
    if not stat.S_ISDIR(about.st_mode):
        raise InvalidInput(what, "it is no device", "mount files and directories with -v")
    found = _below(place, set(), container)
    if not found:
        raise InvalidInput(what, "no device is in that directory", "mount files and directories with -v")
    return found


def rules_for(devices: tuple[Device, ...], access: str) -> tuple[DeviceRule, ...]:
    """Return the rules that let nodes be used: ``access`` is of r, w, m."""
    return tuple(DeviceRule(True, node.type, node.major, node.minor, access) for node in devices)  # type: ignore[arg-type]


def _below(directory: str, without: set[str], shown_as: str = "") -> tuple[Device, ...]:
    found: list[Device] = []
    for entry in sorted(os.scandir(directory), key=lambda one: one.name):
        if entry.name in without or entry.is_symlink():
            continue
        about = entry.stat(follow_symlinks=False)
        path = f"{shown_as or directory}/{entry.name}"
        if stat.S_ISDIR(about.st_mode):
            found += _below(entry.path, without, path)
        elif node := _node(path, about):
            found.append(node)
    return tuple(found)


def _node(path: str, about: os.stat_result) -> Device | None:
    """Return a character or block device as the spec has it; None for anything else."""
    if not (stat.S_ISCHR(about.st_mode) or stat.S_ISBLK(about.st_mode)):
        return None
    kind: Literal["c", "b"] = "c" if stat.S_ISCHR(about.st_mode) else "b"
    major, minor = os.major(about.st_rdev), os.minor(about.st_rdev)
    return Device(path, kind, major, minor, stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid)
