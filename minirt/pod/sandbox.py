"""The sandbox: the namespaces that a pod's containers share, made once and pinned by bind mounts.

    shim ── clone3 ▶ keeper: unshare(NEWNET|NEWIPC|NEWUTS), sethostname, lo up,
                             mount --bind /proc/self/ns/X <sandbox>/ns/X, (netlink socket to the shim), exit
    shim ── clone3(NEWPID|…) ──▶ pause          only where containers share the PID namespace: its PID 1

With a user namespace, which is to own the others, the keeper is cloned into a new one (NEWUSER), and pause into that.
The shim writes its maps and, while the keeper waits, pins what it has made: the keeper has no more rights to that.

A pinned namespace lives as long as its mount, with no process inside. The mounts are the host's: whoever removes the
sandbox unpins them, with or without a living shim.
"""

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from msgspec import Struct, field

from minirt import journal
from minirt.cgroups import lifecycle
from minirt.cgroups import tree as cgroup_tree
from minirt.cgroups.limits import linear
from minirt.cgroups.plan import plan_cgroup
from minirt.cgroups.resources import Resources
from minirt.errors import MinirtError, ShimError, StepFailed, raised_as_step
from minirt.linux import fds, mount, operation, process
from minirt.linux.operation import Operation
from minirt.linux.sockets import Socket
from minirt.namespaces import idmap
from minirt.namespaces.kinds import CLONE_NAMES, FLAGS, PROC_NAMES, JoinNamespace, SetHostname
from minirt.namespaces.sysctl import plan_sysctls
from minirt.oci import executor, sync
from minirt.oci.init import Init, Undumpable
from minirt.oci.userns import AwaitMaps, BecomeRoot
from minirt.pod.pause import Pause

LEAVES = KEEPER, PAUSE = "keeper", "pause"
"""The cgroups of our own processes in a pod's; the others are its containers'."""


class Plan(Struct, frozen=True):
    """What a sandbox is made of. ``directory`` is its state directory, ``cgroup`` a path in our tree.

    ``uid_map`` and ``gid_map`` are those of its user namespace; without them it is in the host's.
    """

    directory: str
    kinds: tuple[str, ...]
    hostname: str
    cgroup: str
    share_pid: bool = False
    shm_bytes: int = 0
    last_cap: int = 63
    sysctls: dict[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    uid_map: idmap.Map = ()
    gid_map: idmap.Map = ()

    @property
    def pinned(self) -> tuple[str, ...]:
        """Return the kinds of namespace that it keeps."""
        return ("user", *self.kinds) if self.uid_map else self.kinds

    def outside(self) -> list[Operation[object]]:
        """Return what the shim does itself: the cgroup and /dev/shm."""
        operations: list[Operation[object]] = self._cgroup() if self.cgroup else []
        if self.shm_bytes:
            owner = _outside(self.uid_map), _outside(self.gid_map)
            operations.append(MountShm(f"{self.directory}/shm", self.shm_bytes, *owner))
        return operations

    def _cgroup(self) -> list[Operation[object]]:
        return plan_cgroup(self.cgroup, self.resources, cgroup_tree.find(), weight=linear)

    def leaf(self, name: str) -> list[Operation[object]]:
        """Return what makes a leaf of the pod's cgroup, for a process of our own."""
        return plan_cgroup(f"{self.cgroup}/{name}", Resources(), cgroup_tree.find())

    def keeper(self) -> list[Operation[Init]]:
        """Return what the short-lived keeper does."""
        operations: list[Operation[Init]] = [Undumpable(), AwaitMaps(), BecomeRoot()] if self.uid_map else []
        operations += [Unshare(self.kinds)] if self.kinds else []
        operations += [SetHostname(self.hostname)] if self.hostname and "uts" in self.kinds else []
        operations += [LinkUp("lo")] if "network" in self.kinds else []
        operations += plan_sysctls(self.sysctls, self.kinds)
        return [*operations, *([] if self.uid_map else self.pins(0))]

    def pins(self, pid: int) -> list[Operation[object]]:
        """Return what keeps the namespaces of a process (0: one's own) alive."""
        return [Pin(kind, pin_path(self.directory, kind), pid) for kind in self.pinned]

    def to_pause(self) -> list[Operation[Init]]:
        """Return what pause's parent does in its stead, where it is to be cloned into a user namespace."""
        return [Undumpable(), JoinNamespace("user", pin_path(self.directory, "user"))] if self.uid_map else []

    def pause(self) -> list[Operation[Init]]:
        """Return what the pause process does before it waits for ever."""
        if not self.share_pid:
            return []
        joins: list[Operation[Init]] = [JoinNamespace(kind, pin_path(self.directory, kind)) for kind in self.kinds]
        return [*joins, Pause(f"{self.directory}/ns", self.last_cap, bool(self.uid_map))]

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield (stage, description) of every operation in order."""
        yield from _described("shim", self.outside())
        if self.pinned:
            yield from _described("shim", self.leaf(KEEPER))
            yield "shim", "clone3 " + ("CLONE_NEWUSER|" if self.uid_map else "") + "CLONE_INTO_CGROUP|CLONE_PIDFD"
            for name, lines in (("uid_map", self.uid_map), ("gid_map", self.gid_map)):
                yield from (("shim", f"write {inside} {outside} {size} to {name}") for inside, outside, size in lines)
            yield from _described("keeper", self.keeper())
            if self.uid_map:
                pins = ((kind, pin_path(self.directory, kind)) for kind in self.pinned)
                yield from (("shim", f"mount --bind /proc/<keeper>/ns/{PROC_NAMES[kind]} {at}") for kind, at in pins)
        if self.share_pid:
            yield from _described("shim", self.leaf(PAUSE))
            yield from _described("stage", self.to_pause())
            yield "shim", "clone3 CLONE_NEWPID|CLONE_NEWNS|CLONE_NEWCGROUP|CLONE_INTO_CGROUP|CLONE_PIDFD"
            yield from _described("pause", self.pause())
            yield "shim", f"mount --bind /proc/<pause>/ns/pid {pin_path(self.directory, 'pid')}"


def _described(stage: str, plan: Sequence[Operation[Init]]) -> Iterator[tuple[str, str]]:
    return ((stage, operation_.describe()) for operation_ in plan)


def _outside(lines: idmap.Map) -> int:
    """Return whom root is outside of a user namespace with this map; without one that is root."""
    return next((outside - inside for inside, outside, size in lines if inside <= 0 < inside + size), 0)


def pin_path(directory: str, kind: str) -> str:
    """Return where a namespace of a sandbox is pinned."""
    return f"{directory}/ns/{PROC_NAMES[kind]}"


class Unshare(Operation[object], frozen=True):
    """Leave namespaces for new ones of the same kinds."""

    kinds: tuple[str, ...]

    def describe(self) -> str:
        """Return the operation in words."""
        return "unshare " + "|".join(CLONE_NAMES[kind] for kind in self.kinds)

    def execute(self, context: object) -> None:
        """Unshare them at once."""
        process.unshare(sum(FLAGS[kind] for kind in self.kinds))


class LinkUp(Operation[object], frozen=True):
    """Set an interface of this network namespace up."""

    name: str

    def describe(self) -> str:
        """Return the operation in words."""
        return f"ip link set {self.name} up"

    def execute(self, context: object) -> None:
        """Set IFF_UP."""
        process.link_up(self.name)


class Pin(Operation[object], frozen=True):
    """Keep a namespace of a process alive with a bind mount. ``pid`` 0 is the process itself."""

    kind: str
    path: str
    pid: int = 0

    def describe(self) -> str:
        """Return the operation in words."""
        return f"mount --bind /proc/{self.pid or 'self'}/ns/{PROC_NAMES[self.kind]} {self.path}"

    def execute(self, context: object) -> None:
        """Make the file to mount on, and bind."""
        os.close(os.open(self.path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o444))
        mount.mount(f"/proc/{self.pid or 'self'}/ns/{PROC_NAMES[self.kind]}", self.path, None, mount.MS_BIND)


class MountShm(Operation[object], frozen=True):
    """Make the pod's /dev/shm, that every container gets a bind of, for the root of its user namespace."""

    path: str
    size_bytes: int
    uid: int = 0
    gid: int = 0

    def describe(self) -> str:
        """Return the operation in words."""
        return f"mount -t tmpfs {self.path} -o {self._data},nosuid,nodev,noexec"

    @property
    def _data(self) -> str:
        owner = f",uid={self.uid},gid={self.gid}" if self.uid or self.gid else ""
        return f"mode=1777,size={self.size_bytes}{owner}"

    def execute(self, context: object) -> None:
        """Mount it on the host, below the sandbox's directory."""
        os.makedirs(self.path, exist_ok=True)
        flags = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
        mount.mount("shm", self.path, "tmpfs", flags, self._data)


class Made(Struct, frozen=True):
    """What came of a plan: a netlink socket of the network namespace (-1: none is wanted), pause's pid (0: none)."""

    netlink: int
    pause: int


def make(plan: Plan, *, netlink: bool) -> Made:
    """Make a sandbox's namespaces.

    The caller must be single-threaded. What is half made when this raises, ``unmake`` removes.

    Raises:
        StepFailed: the kernel refused a step.
    """
    with raised_as_step(f"mkdir {plan.directory}/ns"):
        os.makedirs(f"{plan.directory}/ns", exist_ok=True)
    operation.run(plan.outside(), None)
    received = _keep(plan, netlink) if plan.pinned else -1
    return Made(received, _start_pause(plan) if plan.share_pid else 0)


def unmake(directory: str) -> None:
    """Unpin a sandbox's namespaces and unmount its /dev/shm; what is gone already is fine."""
    for entry in (*(f"ns/{name}" for name in PROC_NAMES.values()), "shm"):
        path = f"{directory}/{entry}"
        if os.path.ismount(path) or _is_pinned(path):
            mount.umount2(path, mount.MNT_DETACH)


def _is_pinned(path: str) -> bool:
    """Say whether ``path`` is a namespace's file: it is on nsfs, so not on its directory's device."""
    try:
        return os.stat(path).st_dev != os.stat(os.path.dirname(path)).st_dev
    except FileNotFoundError:
        return False


def _keep(plan: Plan, netlink: bool) -> int:
    """Run the keeper, wait for it, and return the netlink socket it opened.

    It lives in a leaf of the pod's cgroup: whoever removes the sandbox kills it there, so that it pins nothing later.
    """
    ours, theirs = sync.pair()
    with ours, _leaf(plan, KEEPER) as cgroup_fd:
        pid, pidfd = process.clone3(FLAGS["user"] if plan.uid_map else 0, cgroup_fd)
        if pid == 0:
            ours.close()
            _keeper(plan.keeper(), theirs, netlink)
        os.close(pidfd)
        theirs.close()
        try:
            if plan.uid_map:
                with raised_as_step("map the ids of the sandbox's user namespace"):
                    idmap.write(pid, plan.uid_map, plan.gid_map)
                sync.send(ours, {"type": "mapped"})
            message, received = _last_word(ours, pid)
            if plan.uid_map and message and message["type"] == "made":
                operation.run(plan.pins(pid), None)
        finally:
            ours.close()
            os.waitpid(pid, 0)
    if message is None:
        raise ShimError("make the sandbox's namespaces", "the process that makes them was killed", "try again")
    if message["type"] == "failed":
        raise sync.failure(message, "")
    return received[0] if received else -1


def _last_word(ours: Socket, pid: int) -> tuple[dict[str, Any] | None, list[int]]:
    """Return what a process that is made says at last (None: it was killed); what it did is for the journal."""
    message, received = sync.receive(ours)
    while message is not None and message["type"] == "step":
        if journal.sink:
            journal.sink(sync.record_of(message, pid))
        message, received = sync.receive(ours)
    return message, received


@contextlib.contextmanager
def _leaf(plan: Plan, name: str) -> Iterator[int]:
    """Make a leaf of the pod's cgroup; yield a descriptor to clone into it."""
    operation.run(plan.leaf(name), None)
    with fds.closing(lifecycle.open_fd(cgroup_tree.find().at(f"{plan.cgroup}/{name}"))) as fd:
        yield fd


def _keeper(plan: list[Operation[Init]], report: Socket, netlink: bool) -> NoReturn:
    """Be the keeper. With a user namespace of its own it is there until the shim has pinned all, and hangs up."""
    journal.stage = "keeper"
    if journal.sink:
        sync.send_steps_to(report)
    try:
        operation.run(plan, Init(report, (0, 1, 2)))
        if netlink:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE) as inner:
                sync.send(report, {"type": "made"}, inner.fileno())
        else:
            sync.send(report, {"type": "made"})
        sync.receive(report)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001  a forked child must never return into its parent's code
        failed = error if isinstance(error, MinirtError) else StepFailed("make the sandbox", repr(error))
        sync.send(report, {"type": "failed", **failed.to_wire()})
    os._exit(125)


def _start_pause(plan: Plan) -> int:
    """Start the pause process in a leaf of the pod's cgroup, and pin its PID namespace; return its pid."""
    flags = FLAGS["pid"] | FLAGS["mount"] | FLAGS["cgroup"]
    with _leaf(plan, PAUSE) as cgroup_fd:
        stage, inside = tuple(plan.to_pause()), tuple(plan.pause())
        launched = executor.spawn(stage, flags, inside, (0, 1, 2), cgroup_fd, "clone3 for pause", name="pause")
    os.close(launched.pidfd)
    with launched.sync:
        message, _ = _last_word(launched.sync, launched.pid)
    if message is None or message["type"] == "failed":
        raise sync.failure(message, "pause") if message else ShimError("start pause", "it was killed", "try again")
    operation.run([Pin("pid", pin_path(plan.directory, "pid"), launched.pid)], None)
    return launched.pid
