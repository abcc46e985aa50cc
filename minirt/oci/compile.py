"""Spec to plan: pure functions that decide everything and do nothing.

The order inside is what keeps it safe: namespaces first, then the root is built while the host is still in sight,
then the host goes out of sight, and only then rights are given up one by one, the last before execve.
"""

import os
from collections.abc import Sequence

from minirt.cgroups.plan import plan_cgroup
from minirt.cgroups.tree import Tree
from minirt.errors import InvalidInput
from minirt.linux.operation import Operation
from minirt.namespaces.devices import DEFAULT_LINKS, DEFAULT_NODES, MakeDevice, MakeSymlink
from minirt.namespaces.kinds import JoinNamespace, SetHostname
from minirt.namespaces.mounts import BindMount, MaskPath, MountFilesystem, ReadonlyPath
from minirt.namespaces.rootfs import BindRootfs, MountOverlay, PivotRoot, ReadonlyRoot, SetPropagation
from minirt.namespaces.sysctl import plan_sysctls
from minirt.oci import options
from minirt.oci.init import (
    Chdir,
    CloseInherited,
    Execute,
    FindExecutable,
    Init,
    LoadFilter,
    MakeCwd,
    NewSession,
    OpenTerminal,
    SetUmask,
    Stdio,
    Undumpable,
    WaitForStart,
)
from minirt.oci.plan import Plan
from minirt.oci.spec import Device, Mount, Process, Spec
from minirt.security.capabilities import numbers
from minirt.security.operations import DropBounding, NoNewPrivileges, SetCredentials, SetOomScoreAdj, SetRlimit
from minirt.security.seccomp import Filter

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where commands are looked for when the environment has no PATH: docker's default."""

ROOT_PROPAGATION = {"": "rslave", "slave": "rslave", "rslave": "rslave", "private": "rprivate", "rprivate": "rprivate"}
"""Always with what is mounted below: what stayed shared would show the container's mounts to the host."""


def compile_spec(
    spec: Spec, bundle: str, overlay: MountOverlay | None, tree: Tree, last_cap: int, filter: Filter | None = None
) -> Plan:
    """Return the plan of a container's init.

    ``bundle`` is the absolute directory that a relative root is in; ``overlay`` mounts the root (None: bind the
    directory itself); ``tree`` is this machine's cgroup tree; ``last_cap`` is /proc/sys/kernel/cap_last_cap, for the
    container can read nothing later; ``filter`` is what the spec's seccomp profile compiles to.

    Raises:
        InvalidInput: fields that contradict each other.
    """
    joined = [(space.type, space.path) for space in spec.linux.namespaces if space.path]
    new = tuple(space.type for space in spec.linux.namespaces if not space.path)
    if "mount" not in new:
        raise InvalidInput("use the spec", "linux.namespaces has no new mount namespace", "add one of type mount")
    if len({space.type for space in spec.linux.namespaces}) < len(spec.linux.namespaces):
        raise InvalidInput("use the spec", "linux.namespaces names a type twice", "leave one out")
    inside: list[Operation[Init]] = [*compile_birth(), *compile_oom_score(spec.process)]
    inside += [JoinNamespace(kind, path) for kind, path in joined if kind != "pid"]
    inside += _rootfs(spec, bundle, overlay, "" if "cgroup" in new else tree.mount)
    inside += _identity(spec, new)
    inside += [ReadonlyRoot()] if spec.root.readonly else []
    inside += [PivotRoot()]
    inside += compile_process(spec.process, last_cap, console=True, filter=filter)
    path = spec.linux.cgroups_path
    return Plan(
        command=spec.process.args[0],
        cgroup=tree.at(path) if path else "",
        shim=tuple(plan_cgroup(path, spec.linux.resources, tree)) if path else (),
        stage=tuple(_stage(joined)),
        new=new,
        inside=tuple(inside),
        filter=filter,
    )


def _stage(joined: Sequence[tuple[str, str]]) -> list[Operation[Init]]:
    """Return what must be done by init's parent: init is in sight of the pod's processes from its first moment."""
    joins: list[Operation[Init]] = [JoinNamespace(kind, path) for kind, path in joined if kind == "pid"]
    return [Undumpable(), *joins] if joins else []


def _rootfs(spec: Spec, bundle: str, overlay: MountOverlay | None, host_cgroups: str) -> list[Operation[Init]]:
    root = os.path.join(bundle, spec.root.path)
    operations: list[Operation[Init]] = [SetPropagation(ROOT_PROPAGATION[spec.linux.rootfs_propagation])]
    operations.append(overlay or BindRootfs(root))
    mounts = [_mount(mount, index, host_cgroups) for index, mount in enumerate(spec.mounts)]
    operations += mounts
    if not any(isinstance(one, BindMount) and os.path.normpath(one.target) == "/dev" for one in mounts):
        operations += _devices(spec.linux.devices)
    operations += plan_sysctls(spec.linux.sysctl, {space.type for space in spec.linux.namespaces})
    operations += [ReadonlyPath(path) for path in spec.linux.readonly_paths]
    operations += [MaskPath(path) for path in spec.linux.masked_paths]
    return [*operations, MakeCwd(spec.process.cwd)]


def _devices(more: tuple[Device, ...]) -> list[Operation[Init]]:
    """Return what fills a /dev; not one that is bound from the host, which has its nodes and must not get ours."""
    operations: list[Operation[Init]] = [MakeDevice(path, "c", major, minor) for path, major, minor in DEFAULT_NODES]
    operations += [
        MakeDevice(node.path, node.type, node.major, node.minor, node.file_mode, node.uid, node.gid)
        for node in more
        if node.path not in {path for path, _, _ in DEFAULT_NODES}
    ]
    return operations + [MakeSymlink(path, target) for path, target in DEFAULT_LINKS]


def _mount(mount: Mount, index: int, host_cgroups: str) -> Operation[Init]:
    """Return a mount's operation. ``host_cgroups`` is the host's cgroup2 mount for who has no cgroup namespace.

    There a fresh cgroup2 mount would change the mount options of the whole machine's hierarchy (nsdelegate and others
    belong to it, not to a mount): the host's mount is shown instead.
    """
    found = options.parse(mount.options, f"mounts[{index}].options")
    if mount.type in {"cgroup", "cgroup2"} and host_cgroups:
        return BindMount(host_cgroups, mount.destination, found.attributes, cause=mount.cause)
    if found.bind or mount.type == "bind":
        return BindMount(
            mount.source, mount.destination, found.attributes, found.recursive, found.propagation, mount.cause
        )
    fstype = "cgroup2" if mount.type == "cgroup" else mount.type
    source = mount.source or fstype
    return MountFilesystem(fstype, source, mount.destination, found.attributes, found.data, mount.cause)


def _identity(spec: Spec, new: tuple[str, ...]) -> list[Operation[Init]]:
    operations: list[Operation[Init]] = [SetHostname(spec.hostname)] if spec.hostname and "uts" in new else []
    return operations + plan_sysctls({"kernel.domainname": spec.domainname} if spec.domainname else {}, new)


def compile_birth() -> list[Operation[Init]]:
    """Return what comes first in a process that will be a container's: it lets go of what it has of the shim."""
    return [Undumpable(), CloseInherited(), SetUmask(0)]


def compile_oom_score(process: Process) -> list[SetOomScoreAdj]:
    """Return what sets the oom_score_adj: first, through the host's /proc, for the container may fake its own."""
    return [] if process.oom_score_adj is None else [SetOomScoreAdj(process.oom_score_adj)]


def compile_process(
    process: Process, last_cap: int, *, console: bool, filter: Filter | None = None
) -> list[Operation[Init]]:
    """Return the operations that turn a stage inside a container into ``process``: the tail of init, and of exec.

    Loading a filter needs no_new_privs or CAP_SYS_ADMIN: without the one, the other is kept until execve takes it.
    """
    if not process.args:
        raise InvalidInput("use the spec", "process.args is empty", "name a command")
    size = process.console_size
    terminal = OpenTerminal(size.height if size else 0, size.width if size else 0, console)
    sets, user = process.capabilities, process.user
    operations: list[Operation[Init]] = [NewSession(), terminal if process.terminal else Stdio()]
    operations += [SetRlimit(limit.type, limit.soft, limit.hard) for limit in process.rlimits]
    operations += [NoNewPrivileges()] if process.no_new_privileges else []
    operations += [
        Chdir(process.cwd),
        DropBounding(numbers(sets.bounding), last_cap),
        SetCredentials(
            uid=user.uid,
            gid=user.gid,
            groups=user.additional_gids,
            effective=numbers(sets.effective),
            permitted=numbers(sets.permitted),
            inheritable=numbers(sets.inheritable),
            ambient=numbers(sets.ambient),
            until_execve=numbers(["CAP_SYS_ADMIN"] if filter and not process.no_new_privileges else []),
        ),
        SetUmask(0o022 if user.umask is None else user.umask),
        FindExecutable(process.args[0], search_path(process.env)),
        WaitForStart(),
        *([LoadFilter(filter)] if filter else []),
        Execute(process.args, process.env),
    ]
    return operations


def search_path(env: tuple[str, ...]) -> tuple[str, ...]:
    """Return the directories of PATH in an environment."""
    found = [entry.partition("=")[2] for entry in env if entry.startswith("PATH=")]
    return tuple(part or "." for part in (found[-1] if found else DEFAULT_PATH).split(":"))
