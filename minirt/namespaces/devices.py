"""A container's /dev: its nodes, links and console.

Source: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-devices
"""

import os
import stat

from minirt import journal
from minirt.errors import InvalidInput
from minirt.linux import fds
from minirt.linux.operation import Operation
from minirt.namespaces import inroot
from minirt.namespaces.inroot import InRoot

TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}

DEFAULT_NODES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)

DEFAULT_LINKS = (
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
)


class MakeDevice(Operation[InRoot], frozen=True):
    """Make a device node (``type`` is ``c``, ``b`` or ``p``) with exactly this mode and owner."""

    path: str
    type: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0

    def __post_init__(self) -> None:
        """Refuse what mknod would not know."""
        if self.type not in TYPES:
            raise InvalidInput(
                f"make the device {self.path}", f"its type is {self.type!r}", f"one of {', '.join(TYPES)}"
            )

    def describe(self) -> str:
        """Return the operation in words."""
        return f"mknod -m {self.mode:03o} {self.path} {self.type} {self.major} {self.minor}"

    def execute(self, context: InRoot) -> None:
        """Make the node in its directory; umask does not apply."""
        parent, name = os.path.split(self.path)
        directory = inroot.make_directory(context.rootfs_fd, parent)
        try:
            fds.mknodat(directory, name, TYPES[self.type] | self.mode, self.major, self.minor)
            if self.uid or self.gid:
                os.chown(name, self.uid, self.gid, dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(directory)


class MakeSymlink(Operation[InRoot], frozen=True):
    """Make a symlink inside the root; one that is there already stays."""

    path: str
    target: str

    def describe(self) -> str:
        """Return the operation in words."""
        return f"ln -s {self.target} {self.path}"

    def execute(self, context: InRoot) -> None:
        """Make the link in its directory."""
        parent, name = os.path.split(self.path)
        directory = inroot.make_directory(context.rootfs_fd, parent)
        try:
            journal.step("symlinkat", _symlink, self.target, directory, name)
        except FileExistsError:
            pass
        finally:
            os.close(directory)


def _symlink(target: str, directory: int, name: str) -> None:
    os.symlink(target, name, dir_fd=directory)
