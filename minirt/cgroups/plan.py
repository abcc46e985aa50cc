"""The cgroup part of a plan: make the cgroup, have the ones above it give it controllers, write its limits.

    mkdir /sys/fs/cgroup/minirt/pod1 ─ +cpu +memory… there ─ mkdir …/pod1/web ─ write its cpu.max, memory.max, …
                                                                              └ attach its device filter

The container's process is then cloned into it (CLONE_INTO_CGROUP): no moment exists in which it runs without limits.
"""

import contextlib
import errno
import fcntl
import os

from minirt import journal
from minirt.cgroups import lifecycle
from minirt.cgroups.limits import Setting, Weight, limits, quadratic
from minirt.cgroups.resources import Resources
from minirt.cgroups.tree import Tree, find
from minirt.errors import Conflict, StepFailed
from minirt.linux import fds
from minirt.linux.operation import Operation

CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
"""Those every cgroup of ours gets where the machine has them: usage is read from them, limits or not."""


class DelegateUnit(Operation[object], frozen=True):
    """Have systemd give us a cgroup of its own making; nothing to do where it has."""

    path: str

    def describe(self) -> str:
        """Return one line."""
        return f"have systemd delegate {self.path} to minirt (systemd-run --property=Delegate=yes)"

    def execute(self, context: object, /) -> None:
        """Start the unit, and move its process to a leaf. Raises StepFailed: systemd refused.

        One caller at a time: another could give controllers to the cgroup while systemd still puts the process there.
        """
        keeper = f"{self.path}/keeper"
        if _words(f"{keeper}/cgroup.procs"):
            return
        with fds.closing(os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as above:
            fcntl.flock(above, fcntl.LOCK_EX)
            if not os.path.exists(self.path):
                self._start()
            with contextlib.suppress(FileExistsError):
                fds.mkdir(keeper)
            for pid in _words(f"{self.path}/cgroup.procs"):
                fds.write_file(f"{keeper}/cgroup.procs", pid)

    def _start(self) -> None:
        unit = os.path.basename(self.path)
        command = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", "--slice=-.slice", "--service-type=exec"]
        command += ["--property=Delegate=yes", "--property=KillMode=process", "--description=The cgroups of minirt"]
        status = journal.step("spawn", _spawn, [*command, "sleep", "infinity"])
        if status:
            why = f"systemd-run ended with wait status {status}"
            raise StepFailed(f"start {unit}", why, f"see systemctl status {unit}", step="DelegateUnit")


class MakeCgroup(Operation[object], frozen=True):
    """Make one cgroup. A ``new`` one is empty and its counters are 0; another may be there already."""

    path: str
    new: bool = True
    cause: str = ""

    @property
    def because(self) -> str:
        """Return the field that asked for it."""
        return self.cause

    def describe(self) -> str:
        """Return one line."""
        return f"mkdir {self.path}"

    def execute(self, context: object, /) -> None:
        """Make it. Raises Conflict: a new one is wanted, and processes live in the one that is there."""
        try:
            fds.mkdir(self.path)
        except FileExistsError:
            if self.new:
                self._replace()

    def _replace(self) -> None:
        if lifecycle.is_populated(self.path):
            do = f"kill them first: echo 1 > {self.path}/cgroup.kill"
            raise Conflict(f"make the cgroup {self.path}", "it exists, and processes live in it", do)
        lifecycle.remove(self.path)
        fds.mkdir(self.path)


class EnableControllers(Operation[object], frozen=True):
    """Have a cgroup give controllers to its children. Those in ``needed`` must be given, the others if it can."""

    path: str
    needed: frozenset[str] = frozenset()

    def describe(self) -> str:
        """Return one line."""
        return f"write {_plus(self._wanted())} to {self.path}/cgroup.subtree_control, those it has"

    def execute(self, context: object, /) -> None:
        """Write what is offered and not yet given.

        Raises:
            StepFailed: EBUSY, processes live in this cgroup itself; EINVAL, a realtime process keeps cpu from it.
        """
        given = _words(f"{self.path}/cgroup.subtree_control")
        if lacking := [name for name in self._wanted() if name not in given]:
            offered = _words(f"{self.path}/cgroup.controllers")
            if more := [name for name in lacking if name in offered]:
                self._give(more)

    def _wanted(self) -> list[str]:
        return sorted({*CONTROLLERS, *self.needed})

    def _give(self, more: list[str]) -> None:
        control = f"{self.path}/cgroup.subtree_control"
        try:
            fds.write_file(control, _plus(more))
        except OSError:
            if needed := [name for name in more if name in self.needed]:
                self._insist(control, needed)

    def _insist(self, control: str, needed: list[str]) -> None:
        try:
            fds.write_file(control, _plus(needed))
        except OSError as error:
            do = ""
            if error.errno == errno.EBUSY:
                do = f"processes live in {self.path} itself, and may only live in cgroups below it: move them to one"
            raise StepFailed.from_os_error(self.describe(), error, do=do, step="EnableControllers") from error


class WriteCgroup(Operation[object], frozen=True):
    """Write one setting of a cgroup."""

    path: str
    setting: Setting
    cause: str = ""

    @property
    def because(self) -> str:
        """Return the field that asked for it."""
        return self.cause

    def describe(self) -> str:
        """Return one line."""
        return f"write {self.setting.value} to {self.path}/{self.setting.file}"

    def execute(self, context: object, /) -> None:
        """Write it. Raises StepFailed: ENOENT (no such file in this kernel), EINVAL, ERANGE, ENODEV (io.max)."""
        try:
            fds.write_file(f"{self.path}/{self.setting.file}", self.setting.value)
        except OSError as error:
            do = ""
            if error.errno == errno.ENOENT:
                do = f"this kernel's {self.setting.controller or 'cgroup'} controller has no such file here"
            raise StepFailed.from_os_error(self.describe(), error, do=do, step="WriteCgroup") from error


def plan_cgroup(
    path: str, resources: Resources, tree: Tree | None = None, *, weight: Weight = quadratic, cause: str = ""
) -> list[Operation[object]]:
    """Return what makes the cgroup ``path`` with its limits, and whatever is missing above it.

    ``path`` is as ``Tree.at`` takes it. Pure when the tree is given; else this machine's is looked up.

    Raises:
        InvalidInput: the path, or the limits, make no sense.
        ControllerMissing: no tree is given, and there is no cgroup2.
    """
    tree = tree or find()
    settings = [setting for setting in limits(resources, weight) if not setting.is_initial]
    needed = frozenset(setting.controller for setting in settings if setting.controller)
    here = tree.at(path)
    above: list[Operation[object]] = []
    for cgroup in tree.ancestors(here):
        if cgroup not in (tree.mount, tree.base):
            above.append(MakeCgroup(cgroup, new=False))
        above.append(EnableControllers(cgroup, needed))
    delegation = [DelegateUnit(tree.base)] if tree.is_delegated and here.startswith(tree.base + "/") else []
    written = [WriteCgroup(here, one, cause) for one in settings]
    filters = _filters(here, resources, cause)
    return [*delegation, *above, MakeCgroup(here, cause=cause), *written, *filters]


def _filters(cgroup: str, resources: Resources, cause: str) -> list[Operation[object]]:
    if not resources.devices:
        return []
    from minirt.cgroups.devices import plan_devices

    return [*plan_devices(cgroup, resources.devices, cause)]


def _plus(controllers: list[str]) -> str:
    return " ".join(f"+{name}" for name in controllers)


def _spawn(command: list[str]) -> int:
    """Run a program to its end; return its wait status."""
    return os.waitpid(os.posix_spawnp(command[0], command, os.environ), 0)[1]


def _words(file: str) -> list[str]:
    """Return the words of a file; none where it is not there."""
    try:
        return fds.read_file(file).split()
    except FileNotFoundError:
        return []
