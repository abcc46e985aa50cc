"""The host's device nodes, for a privileged container."""

import os
import stat

from minirt.oci.spec import Device

OWN = {"pts", "shm", "mqueue", "fd", "stdin", "stdout", "stderr", "console", "ptmx", ".lxc", "hugepages"}


def host_devices(directory: str = "/dev") -> tuple[Device, ...]:
    """Return the device nodes below /dev, but for what every container has of its own."""
    found: list[Device] = []
    for entry in sorted(os.scandir(directory), key=lambda one: one.name):
        if entry.name in OWN or entry.is_symlink():
            continue
        about = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(about.st_mode):
            found += host_devices(entry.path)
        elif stat.S_ISCHR(about.st_mode) or stat.S_ISBLK(about.st_mode):
            kind = "c" if stat.S_ISCHR(about.st_mode) else "b"
            major, minor = os.major(about.st_rdev), os.minor(about.st_rdev)
            mode = stat.S_IMODE(about.st_mode)
            found.append(Device(entry.path, kind, major, minor, mode, about.st_uid, about.st_gid))
    return tuple(found)
