"""A container in a user namespace: its plan, divided between who has the host's rights and who has none of them.

    shim ─ fork ▶ stage (the host's root)     oom_score_adj, labels, limits raised; what is the host's is opened, as
     │               │                        detached mounts: root, binds, device nodes; namespaces by path joined,
     │               │                        a user namespace last (in it the stage could join no other)
     │               └ clone3(NEWUSER|NEWNS|…|CLONE_PARENT|INTO_CGROUP) ▶ init: every namespace is the new one's
     │ ── write uid_map, gid_map ── "mapped" ──────────────────────────────▶ │ waits
     │                                                                       root put on its place (still uid 0 outside:
     │                                                                       the way there may be closed to others)
     │                                                                       setresuid 0: root inside, nobody outside
     │                                                                       unshare NEWIPC: its mqueue is root's then
     │                                                                       all else, as without a user namespace

One clone3 makes the user namespace first and all the others its own; the cgroup is entered with the stage's rights.
A mount that was prepared outside is attached by descriptor, so init needs to reach nothing of the host's. Nothing is
mknod'ed (EPERM inside): the host's nodes are bound. sysfs can be mounted only by who owns the network namespace; where
that is the host's, the host's /sys is bound.
Source: user_namespaces(7); https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#user-namespace-mappings
"""

import os
import resource
import stat
from collections.abc import Iterable

from msgspec import Struct

from minirt import journal
from minirt.errors import InvalidInput, StepFailed
from minirt.linux import fds, mount, prctl
from minirt.linux.operation import Operation
from minirt.namespaces import inroot
from minirt.namespaces.devices import TYPES, MakeDevice
from minirt.namespaces.idmap import Map, check, check_root
from minirt.namespaces.inroot import InRoot
from minirt.namespaces.kinds import JoinNamespace, MakeNamespace
from minirt.namespaces.layers import MountLayers
from minirt.namespaces.mounts import BindMount, MountFilesystem
from minirt.namespaces.rootfs import BindRootfs, MapLayer, MountOverlay, SetPropagation
from minirt.oci import sync
from minirt.oci.init import Init, NewKeyring
from minirt.oci.spec import IdMapping, Linux
from minirt.security.labels import SetAppArmorProfile, SetSelinuxLabel
from minirt.security.operations import INFINITY, SetOomScoreAdj, SetRlimit


class BindDevice(Operation[InRoot], frozen=True):
    """Show a device node of the host's at the same path inside, if it is the one that is meant."""

    path: str
    type: str
    major: int
    minor: int

    def describe(self) -> str:
        """Return the operation in words."""
        return f"mount --bind {self.path} {self.path}"

    def execute(self, context: InRoot) -> None:
        """Copy the node's mount, attach the copy."""
        with fds.closing(self.prepare()) as tree:
            self.attach(context, tree)

    def prepare(self) -> int:
        """Return the host's node as a mount, detached. Raises StepFailed: the host has another one there."""
        tree = mount.open_tree(-100, self.path, mount.OPEN_TREE_CLONE)
        found = os.fstat(tree)
        if (stat.S_IFMT(found.st_mode), found.st_rdev) != (TYPES[self.type], os.makedev(self.major, self.minor)):
            os.close(tree)
            why = f"the host's {self.path} is not {self.type} {self.major}:{self.minor}"
            do = "in a user namespace only nodes that the host has can be used"
            raise StepFailed(self.describe(), why, do, step=type(self).__name__)
        mount.mount_setattr(tree, "", 0, propagation=mount.MS_PRIVATE)
        return tree

    def attach(self, context: InRoot, tree: int) -> None:
        """Put the copy on a file inside the root, made where it is missing."""
        with fds.closing(inroot.make_file(context.rootfs_fd, self.path)) as target:
            mount.move_mount(tree, target)


HostMount = BindMount | BindDevice | BindRootfs | MountLayers | MountOverlay


class PrepareMount(Operation[Init], frozen=True):
    """Open what is the host's as a detached mount, for init to attach."""

    of: HostMount

    def describe(self) -> str:
        """Return the operation in words."""
        return f"prepare, detached: {self.of.describe()}"

    @property
    def because(self) -> str:
        """Return the field that asked for it."""
        return self.of.because

    def execute(self, context: Init) -> None:
        """Keep its descriptor; init inherits it."""
        context.prepared.append(self.of.prepare())


class AttachMount(Operation[Init], frozen=True):
    """Attach the next mount that the stage has prepared."""

    of: HostMount

    def describe(self) -> str:
        """Return the operation in words."""
        return f"move_mount: {self.of.describe()}"

    @property
    def because(self) -> str:
        """Return the field that asked for it."""
        return self.of.because

    def execute(self, context: Init) -> None:
        """Attach it; the root's descriptor is kept."""
        tree = context.prepared.pop(0)
        self.of.attach(context, tree)
        if tree != context.rootfs_fd:
            os.close(tree)


class AwaitMaps(Operation[Init], frozen=True):
    """Wait until the shim has mapped the ids of this user namespace."""

    def describe(self) -> str:
        """Return the operation in words."""
        return "wait for uid_map and gid_map"

    def execute(self, context: Init) -> None:
        """Wait; the end of the pair means that nobody wants this container any more."""
        message, _ = sync.receive(context.sync)
        if message is None:
            os._exit(125)


class BecomeRoot(Operation[object], frozen=True):
    """Become the user namespace's root: until now this is the host's, who is nobody in it."""

    def describe(self) -> str:
        """Return the operation in words."""
        return "setresgid 0, setgroups none, setresuid 0 (in the user namespace)"

    def execute(self, context: object) -> None:
        """Change over; the capabilities stay. Raises OSError: EINVAL, 0 is not in the map.

        Where fs.suid_dumpable is 1, a change of ids makes a process dumpable: that is taken back.
        """
        journal.step("setresgid", os.setresgid, 0, 0, 0)
        journal.step("setgroups", os.setgroups, ())
        journal.step("setresuid", os.setresuid, 0, 0, 0)
        prctl.set_dumpable(False)


class RaiseRlimits(Operation[object], frozen=True):
    """Raise hard limits as far as a process to come will set them: only the host's root may."""

    limits: tuple[tuple[str, int], ...]

    def describe(self) -> str:
        """Return the operation in words."""
        return "raise the hard limits of " + (", ".join(kind for kind, _ in self.limits) or "nothing")

    def execute(self, context: object) -> None:
        """Raise them, and lower none; where minirt may not either (EPERM), who sets them later warns of it."""
        for name, wanted in self.limits:
            kind = getattr(resource, name)
            soft, hard = resource.getrlimit(kind)
            if hard != resource.RLIM_INFINITY and wanted > hard:
                most = resource.RLIM_INFINITY if wanted >= INFINITY >> 1 else wanted
                try:
                    journal.step("prlimit64", resource.prlimit, 0, kind, (soft, most))
                except PermissionError:
                    continue


class Maps(Struct, frozen=True):
    """The maps of a new user namespace: (id inside, id outside, how many); empty for one that is joined."""

    uids: Map = ()
    gids: Map = ()


def maps(linux: Linux) -> Maps | None:
    """Return the maps of the container's user namespace; None: it has none of its own.

    Maps beside a path are those that the namespace has already: it keeps them.

    Raises:
        InvalidInput: maps without a user namespace, or the other way round.
    """
    spaces = [space for space in linux.namespaces if space.type == "user"]
    for name, given in (("uidMappings", linux.uid_mappings), ("gidMappings", linux.gid_mappings)):
        if given and not spaces:
            do = "add one of type user"
            raise InvalidInput(f"use linux.{name}", "linux.namespaces has no user namespace", do)
        if spaces and not spaces[0].path and not given:
            why = f"linux.namespaces has a new user namespace, and linux.{name} is empty"
            raise InvalidInput("use the spec", why, "say which ids of the host those inside are")
        check(lines(given), f"linux.{name}")
        if given:
            check_root(lines(given), f"linux.{name}")
    if not spaces:
        return None
    return Maps() if spaces[0].path else Maps(lines(linux.uid_mappings), lines(linux.gid_mappings))


def lines(mappings: tuple[IdMapping, ...]) -> Map:
    """Return mappings as lines of a uid_map."""
    return tuple((one.container_id, one.host_id, one.size) for one in mappings)


def raised_limits(inside: Iterable[Operation[Init]]) -> RaiseRlimits:
    """Return what a stage does so that a process without the host's rights can set its limits."""
    return RaiseRlimits(tuple((one.type, one.hard) for one in inside if isinstance(one, SetRlimit)))


def map_layers(overlay: MountOverlay | None, inside: Iterable[Operation[Init]], linux: Linux) -> list[Operation[Init]]:
    """Return what a stage does first for overlays whose layers are to have the user namespace's ids.

    Its mount namespace is a slave of the host's, so that nobody else sees a layer as anything but what it is.
    """
    volumes = [one for one in inside if isinstance(one, MountLayers)]
    found: list[MountOverlay | MountLayers] = [*([overlay] if overlay else []), *volumes]
    mapped = dict.fromkeys(layer for one in found if one.mapped for layer in one.lowers)
    if not mapped and not volumes:
        return []
    uids, gids = lines(linux.uid_mappings), lines(linux.gid_mappings)
    return [MakeNamespace("mount"), SetPropagation("rslave"), *(MapLayer(one, uids, gids) for one in mapped)]


def divide(
    stage: list[Operation[Init]], inside: list[Operation[Init]], *, own_network: bool, new_ipc: bool
) -> tuple[list[Operation[Init]], list[Operation[Init]]]:
    """Return (stage, inside) for a user namespace: what needs the host's rights goes to the stage, in its order.

    ``stage`` is what would be done there anyway; ``own_network`` says that the network namespace is not the host's,
    ``new_ipc`` that init makes itself an IPC namespace.
    """
    early: list[Operation[Init]] = [raised_limits(inside)]
    joins = [one for one in inside if isinstance(one, JoinNamespace) and one.kind != "cgroup"]
    later: list[Operation[Init]] = []
    become: list[Operation[Init]] = [BecomeRoot(), *([MakeNamespace("ipc")] if new_ipc else [])]
    for one in inside:
        if isinstance(one, SetOomScoreAdj | SetAppArmorProfile | SetSelinuxLabel):
            early.append(one)
        elif host := _of_the_host(one, own_network=own_network):
            early.append(PrepareMount(host))
            later += [AttachMount(host), *(become if isinstance(host, BindRootfs | MountOverlay) else [])]
        elif one not in joins:
            later += [one, AwaitMaps()] if isinstance(one, NewKeyring) and not _joins_user(joins) else [one]
    last = [one for one in joins if one.kind == "user"]
    return [*early, *stage, *(one for one in joins if one.kind != "user"), *last], later


def _joins_user(joins: list[JoinNamespace]) -> bool:
    return any(one.kind == "user" for one in joins)


def _of_the_host(one: Operation[Init], *, own_network: bool) -> HostMount | None:
    """Return what has to be opened with the host's rights for an operation; None: it needs none."""
    match one:
        case BindMount() | BindRootfs() | MountLayers() | MountOverlay():
            return one
        case MakeDevice(type=("c" | "u" | "b") as kind):
            return BindDevice(one.path, kind, one.major, one.minor)
        case MountFilesystem(fstype="sysfs") if not own_network:
            return BindMount("/sys", one.target, one.attributes, cause=one.cause)
        case _:
            return None
