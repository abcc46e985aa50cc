"""Sysctls of a namespace: the kernel looks them up in the namespaces of whoever writes.

Source: sysctl(8), proc_sys(5).
"""

from minirt.linux import fds
from minirt.linux.operation import Operation


class WriteSysctl(Operation[object], frozen=True):
    """Write one sysctl (``net.ipv4.ip_forward``) through the host's /proc, before it goes out of sight."""

    key: str
    value: str

    @property
    def path(self) -> str:
        """Return its file; a key with slashes may have dots inside its parts."""
        return "/proc/sys/" + (self.key if "/" in self.key else self.key.replace(".", "/"))

    def describe(self) -> str:
        """Return the operation in words."""
        return f"sysctl {self.key}={self.value}"

    def execute(self, context: object) -> None:
        """Write the file."""
        fds.write_file(self.path, self.value)
