"""Pause: PID 1 of the PID namespace that a pod's containers share.

A container with root sees it as /proc/1 and may read nothing there: pause is not dumpable, holds no capability, stands
in an empty read-only root, keeps no descriptor, and lets go of most of the memory that it was forked with. It reaps
what containers leave behind, and no signal ends it.
"""

import os

from minirt import journal
from minirt.linux import capability, fds, memory, mount, prctl, process
from minirt.linux.operation import Operation
from minirt.oci import sync
from minirt.oci.init import Init
from minirt.oci.userns import BecomeRoot


class Pause(Operation[Init], frozen=True):
    """Turn this process into pause, for ever. ``place`` is a directory to mount the empty root on.

    With ``mapped`` it is in a user namespace, and becomes its root once it needs no way to that place any more.
    """

    place: str
    last_cap: int
    mapped: bool = False

    def describe(self) -> str:
        """Return the operation in words."""
        return "pivot_root into an empty read-only tmpfs, drop every capability, not dumpable, wait for children"

    def execute(self, context: Init) -> None:
        """Give up everything, report, and never return."""
        unused = [number for piece in memory.heaps() for number in (piece.begin, piece.size)]  # while /proc is there
        prctl.set_dumpable(False)
        self._empty_root()
        if self.mapped:
            BecomeRoot().execute(context)
        journal.step("setsid", os.setsid)
        prctl.set_name("pause")
        prctl.set_title("pause")
        for number in range(self.last_cap + 1):
            prctl.capbset_drop(number)
        capability.capset(0, 0, 0)
        prctl.set_no_new_privs()
        prctl.set_dumpable(False)
        sync.send(context.sync, {"type": "ready"})
        fds.close_all_but(set())
        process.pause(unused)

    def _empty_root(self) -> None:
        mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
        mount.mount("pause", self.place, "tmpfs", mount.MS_RDONLY | mount.MS_NOSUID | mount.MS_NODEV, "size=0,mode=555")
        os.chdir(self.place)
        mount.pivot_root(".", ".")
        mount.umount2(".", mount.MNT_DETACH)
        os.chdir("/")
