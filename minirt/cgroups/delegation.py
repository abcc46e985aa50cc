"""A cgroup given to its container: who is root in a user namespace of its own may divide it, and change no limit of it.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, "Model of Delegation"
"""

import contextlib
import os

from minirt import journal
from minirt.linux.operation import Operation

LISTED = "/sys/kernel/cgroup/delegate"
ALWAYS = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
"""The files that are given where the kernel (before 4.15) has no list of them."""


class DelegateCgroup(Operation[object], frozen=True):
    """Make the container's root, the host's ``uid``, the owner of a cgroup and of the files that divide it."""

    path: str
    uid: int

    def describe(self) -> str:
        """Return one line."""
        return f"chown {self.uid} {self.path} and its {', '.join(ALWAYS)}"

    def execute(self, context: object, /) -> None:
        """Change the owner of each; the list has files of controllers that are not here."""
        journal.step("chown", os.chown, self.path, self.uid, -1)
        for name in _files():
            with contextlib.suppress(FileNotFoundError):
                journal.step("chown", os.chown, f"{self.path}/{name}", self.uid, -1)


def _files() -> tuple[str, ...]:
    try:
        with open(LISTED) as listed:
            return tuple(listed.read().split())
    except FileNotFoundError:
        return ALWAYS
