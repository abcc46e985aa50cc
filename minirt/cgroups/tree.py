"""Where our cgroups are: the cgroup2 mount, and our tree in it.

    /sys/fs/cgroup                       the mount (hybrid machines: /sys/fs/cgroup/unified), from mountinfo
    └─ minirt-cgroups.service            only where systemd is PID 1: a unit it delegated (``Delegate=yes``)
       ├─ keeper                         the unit's one process, which keeps the unit alive
       └─ minirt                         our root (``MINIRT_CGROUP`` names another: the tests have their own)
          └─ pod<uid>                    a sandbox
             └─ <container id>           a container; what it makes below is its own

systemd takes controllers away from cgroups it did not make, at the next daemon-reload, unless they lie below a unit
with ``Delegate=yes``. Such a unit must have a process, and a cgroup that gives controllers to its children must have
none: hence the keeper, moved to a leaf. The unit is transient; it is started with the first container and stays.
Stopping it by hand ends the keeper, and leaves containers alone (``KillMode=process``).

A path given to ``Tree.at`` is relative to our root; one that begins with "/" is relative to the mount, which is how a
``cgroupsPath`` of the OCI spec means it; a directory below the mount is itself. What comes out is the directory.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, https://systemd.io/CGROUP_DELEGATION, proc_pid_mountinfo(5)
"""

import contextlib
import os
from typing import NamedTuple

from minirt.errors import ControllerMissing, InvalidInput
from minirt.linux import fds

UNIT = "minirt-cgroups.service"
CGROUP2_SUPER_MAGIC = 0x63677270
USUAL_MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


class Tree(NamedTuple):
    """The cgroup2 mount, the directory in it that is ours to divide, and our root."""

    mount: str
    base: str
    root: str

    @property
    def is_delegated(self) -> bool:
        """Say whether systemd must first give us ``base``."""
        return self.base != self.mount

    def at(self, path: str) -> str:
        """Return the directory of a cgroup. Raises InvalidInput: ``path`` leads elsewhere by "..", or is odd."""
        if path.startswith(self.mount + "/"):
            path = path.removeprefix(self.mount)
        above = self.mount if path.startswith("/") else self.root
        return f"{above}/{checked_path(path.strip('/'))}"

    def ancestors(self, cgroup: str) -> list[str]:
        """Return the directories above one, outermost first, that must give it controllers."""
        top = self.base if cgroup.startswith(self.base + "/") else self.mount
        names = cgroup.removeprefix(top + "/").split("/")
        return ["/".join([top, *names[:count]]) for count in range(len(names))]

    def controllers(self) -> frozenset[str]:
        """Return the controllers that ``base`` can give to our cgroups."""
        top = self.base if os.path.exists(self.base) else self.mount
        with open(f"{top}/cgroup.controllers") as file:
            return frozenset(file.read().split())


def find() -> Tree:
    """Return this machine's tree.

    Raises:
        ControllerMissing: no cgroup2 file system is mounted.
    """
    mount = _usual_mount()
    if not mount:
        with open("/proc/self/mountinfo") as file:  # which is long where there are many pods
            mount = mount_point(file.read())
    base = f"{mount}/{UNIT}" if is_systemd() else mount
    return Tree(mount, base, f"{base}/{checked_path(os.environ.get('MINIRT_CGROUP') or 'minirt')}")


def _usual_mount() -> str:
    """Return where cgroup2 usually is if it is there, else ""."""
    for point in USUAL_MOUNTS:
        with contextlib.suppress(OSError):
            if fds.fs_type(point) == CGROUP2_SUPER_MAGIC:
                return point
    return ""


def mount_point(mountinfo: str) -> str:
    """Return where cgroup2 is mounted, from the text of a mountinfo; a usual place is preferred.

    Raises:
        ControllerMissing: it is mounted nowhere.
    """
    types = {point: fstype for point, fstype, _ in mounts(mountinfo)}
    for point in (*USUAL_MOUNTS, *types):
        if types.get(point) == "cgroup2":
            return point
    raise ControllerMissing(
        "use cgroups", "no cgroup2 file system is mounted", "mount -t cgroup2 none /sys/fs/cgroup, or use vm/run"
    )


def mounts(mountinfo: str) -> list[tuple[str, str, str]]:
    """Return (mount point, file system type, superblock options) of each mount, in order of mounting."""
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4]
        if "\\" in point:
            point = point.encode().decode("unicode_escape")
        fstype, _, rest = right.partition(" ")
        found.append((point, fstype, rest.rpartition(" ")[2]))
    return found


def is_systemd() -> bool:
    """Say whether systemd is PID 1. Source: sd_booted(3)."""
    return os.path.isdir("/run/systemd/system")


def checked_path(path: str) -> str:
    """Return a cgroup's path if it stays below where it begins. Raises InvalidInput: it does not, or is empty."""
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.startswith("cgroup.") for part in parts) or "\0" in path:
        why = "it must be names joined by '/', none of them empty, '.', '..' or beginning with 'cgroup.'"
        raise InvalidInput(f"use {path!r} as a cgroup's path", why)
    return path
