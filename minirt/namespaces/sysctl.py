"""Sysctls of a namespace: the kernel looks them up in the namespaces of whoever writes.

What belongs to no namespace, or to one of the host's, would change the whole machine: it is refused.
Source: sysctl(8), proc_sys(5), ipc_namespaces(7).
"""

from collections.abc import Collection, Mapping

from minirt.errors import InvalidInput
from minirt.linux import fds
from minirt.linux.operation import Operation

IPC = ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
OWNERS = {
    "net/": "network",
    "fs/mqueue/": "ipc",
    **{f"kernel/{name}": "ipc" for name in IPC},
    "kernel/domainname": "uts",
}
"""The kind of namespace that a sysctl, or with a slash at its end all below it, belongs to."""


class WriteSysctl(Operation[object], frozen=True):
    """Write one sysctl (``net.ipv4.ip_forward``) through the host's /proc, before it goes out of sight."""

    key: str
    value: str

    def __post_init__(self) -> None:
        """Refuse what leads elsewhere, concerns the whole machine, or is said in another place."""
        if self._name == "kernel/hostname":
            raise InvalidInput(f"set the sysctl {self.key}", "the name has a field of its own", "set the hostname")
        if ".." in self._name.split("/") or not self.owner:
            why = "it belongs to no namespace: the whole machine would get it"
            raise InvalidInput(f"set the sysctl {self.key}", why, "set it on the host, or leave it out")

    @property
    def _name(self) -> str:
        return self.key if "/" in self.key else self.key.replace(".", "/")

    @property
    def path(self) -> str:
        """Return its file; a key with slashes may have dots inside its parts."""
        return "/proc/sys/" + self._name

    @property
    def owner(self) -> str:
        """Return the kind of namespace that it belongs to ("" for none)."""
        whole = OWNERS.get(self._name, "")
        return whole or next(
            (kind for top, kind in OWNERS.items() if top[-1] == "/" and self._name.startswith(top)), ""
        )

    def describe(self) -> str:
        """Return the operation in words."""
        return f"sysctl {self.key}={self.value}"

    def execute(self, context: object) -> None:
        """Write the file."""
        fds.write_file(self.path, self.value)


def plan_sysctls(values: Mapping[str, str], kinds: Collection[str]) -> list[WriteSysctl]:
    """Return what sets sysctls where the namespaces of ``kinds`` are not the host's.

    Raises:
        InvalidInput: one of them would be the host's.
    """
    operations = [WriteSysctl(key, value) for key, value in values.items()]
    for one in operations:
        if one.owner not in kinds:
            why = f"it belongs to the {one.owner} namespace, which is the host's here"
            raise InvalidInput(f"set the sysctl {one.key}", why, "leave it out, or ask for a namespace of its own")
    return operations
