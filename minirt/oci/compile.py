"""Spec to plan: pure functions that decide everything and do nothing.

The order inside is what keeps it safe: namespaces first, then the root is built while the host is still in sight,
then the host goes out of sight, and only then rights are given up one by one, the last before execve.
"""

import os
from collections.abc import Iterator, Sequence

from minirt.cgroups.plan import plan_cgroup
from minirt.cgroups.tree import Tree
from minirt.errors import InvalidInput, asked_by
from minirt.linux.operation import Operation
from minirt.namespaces.devices import DEFAULT_LINKS, DEFAULT_NODES, MakeDevice, MakeSymlink
from minirt.namespaces.kinds import JoinNamespace, OffsetClocks, SetHostname
from minirt.namespaces.mounts import BindMount, MaskPath, ReadonlyPath
from minirt.namespaces.rootfs import BindRootfs, HideBelow, MountOverlay, PivotRoot, ReadonlyRoot, SetPropagation
from minirt.namespaces.sysctl import plan_sysctls
from minirt.oci import refusals, userns
from minirt.oci.execution import SetAffinity, SetIoPriority, SetPersonality, SetScheduler, cpu_list
from minirt.oci.init import (
    Chdir,
    CloseInherited,
    Execute,
    FindExecutable,
    FindHome,
    Init,
    LoadFilter,
    MakeCwd,
    NewKeyring,
    NewSession,
    OpenTerminal,
    SetUmask,
    Stdio,
    Undumpable,
    WaitForStart,
)
from minirt.oci.mounts import compile_mount, shows_cgroups_writable
from minirt.oci.plan import Plan
from minirt.oci.spec import Affinity, Capabilities, Device, Linux, Process, Spec
from minirt.oci.userns import Maps
from minirt.security.capabilities import numbers
from minirt.security.labels import SetAppArmorProfile, SetSelinuxLabel
from minirt.security.operations import DropBounding, NoNewPrivileges, SetCredentials, SetOomScoreAdj, SetRlimit
from minirt.security.seccomp import Filter

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where commands are looked for when the environment has no PATH: docker's default."""

ROOT_PROPAGATION = {"private": "rprivate", "rprivate": "rprivate", "shared": "rshared", "rshared": "rshared"}
"""What the host's mounts become in the container's namespace, always with what is mounted below; else rslave.

Only with shared do mounts in a bound directory get to the host; the container's own root stays hidden all the same.
"""


def compile_spec(
    spec: Spec, bundle: str, overlay: MountOverlay | None, tree: Tree, last_cap: int, filter: Filter | None = None
) -> Plan:
    """Return the plan of a container's init.

    ``bundle`` is the absolute directory that a relative root is in; ``overlay`` mounts the root (None: bind the
    directory itself); ``tree`` is this machine's cgroup tree; ``last_cap`` is /proc/sys/kernel/cap_last_cap, for the
    container can read nothing later; ``filter`` is what the spec's seccomp profile compiles to.

    Raises:
        InvalidInput: fields that contradict each other.
        Unsupported: a field that this version does not do, by its place in the spec.
    """
    refusals.check(spec)
    joined = [(space.type, space.path) for space in spec.linux.namespaces if space.path]
    new = tuple(space.type for space in spec.linux.namespaces if not space.path)
    if "mount" not in new:
        raise InvalidInput("use the spec", "linux.namespaces has no new mount namespace", "add one of type mount")
    if len({space.type for space in spec.linux.namespaces}) < len(spec.linux.namespaces):
        raise InvalidInput("use the spec", "linux.namespaces names a type twice", "leave one out")
    clocks = _clocks(spec.linux, new)
    ids = userns.maps(spec.linux)
    inside: list[Operation[Init]] = [*compile_birth(), *compile_oom_score(spec.process), *compile_labels(spec.process)]
    inside += [JoinNamespace(kind, path) for kind, path in joined if kind != "pid"]
    inside += _rootfs(spec, bundle, overlay, "" if "cgroup" in new else tree.mount)
    inside += _identity(spec, new)
    inside += [ReadonlyRoot()] if spec.root.readonly else []
    inside += _pivot(spec.linux)
    inside += compile_process(spec.process, last_cap, console=True, filter=filter)
    stage = _stage(joined, clocks)
    if ids:
        own_network = any(space.type == "network" for space in spec.linux.namespaces)
        layers = userns.map_layers(overlay, inside, spec.linux)
        stage, inside = userns.divide(stage, inside, own_network=own_network, new_ipc="ipc" in new)
        stage = [*layers, *stage]
        new = tuple(kind for kind in new if kind != "ipc")
    cgroup, shim = _cgroup(spec.linux, tree)
    if ids and ids.uids and "cgroup" in new and cgroup and shows_cgroups_writable(spec.mounts):
        shim = (*shim, delegation_of(cgroup, ids))
    return Plan(
        command=spec.process.args[0],
        cgroup=cgroup,
        shim=shim,
        stage=tuple([Undumpable(), *stage] if stage else []),
        new=tuple(kind for kind in new if kind != "time" or not clocks),
        inside=tuple(inside),
        warnings=tuple(refusals.warnings(spec)),
        filter=filter,
        uid_map=ids.uids if ids else (),
        gid_map=ids.gids if ids else (),
    )


def _cgroup(linux: Linux, tree: Tree) -> tuple[str, tuple[Operation[object], ...]]:
    """Return the cgroup's directory ("" for none), and what makes it."""
    path = linux.cgroups_path
    if not path:
        if linux.resources.devices:
            _check_no_filter(linux)
        return "", ()
    with asked_by("linux.cgroupsPath"):
        directory = tree.at(path)
    with asked_by("linux.resources"):
        return directory, tuple(plan_cgroup(path, linux.resources, tree))


def delegation_of(cgroup: str, ids: Maps) -> Operation[object]:
    """Return what gives a cgroup to the root of a user namespace with these maps."""
    from minirt.cgroups.delegation import DelegateCgroup

    return DelegateCgroup(cgroup, next(outside for inside, outside, size in ids.uids if inside == 0 and size))


def _check_no_filter(linux: Linux) -> None:
    """Refuse rules for devices where there is no cgroup to keep to them."""
    from minirt.cgroups.devices import is_filter

    if is_filter(linux.resources.devices):
        why = "linux.resources.devices are rules of a cgroup, and linux.cgroupsPath is empty"
        raise InvalidInput("use the spec", why, "name a cgroup, or leave the rules out")


def _stage(joined: Sequence[tuple[str, str]], clocks: list[OffsetClocks]) -> list[Operation[Init]]:
    """Return what must be done by init's parent: init is in sight of the pod's processes from its first moment."""
    return [*clocks, *(JoinNamespace(kind, path) for kind, path in joined if kind == "pid")]


def _clocks(linux: Linux, new: tuple[str, ...]) -> list[OffsetClocks]:
    """Return what sets the clocks of a new time namespace."""
    offsets = tuple((clock, offset.secs, offset.nanosecs) for clock, offset in linux.time_offsets.items())
    if offsets and "time" not in new:
        raise InvalidInput(
            "use linux.timeOffsets", "linux.namespaces has no new time namespace", "add one of type time"
        )
    return [OffsetClocks(offsets)] if offsets else []


def _pivot(linux: Linux) -> list[Operation[Init]]:
    """Return what makes the root the root, and what the container's own root then is to namespaces made in it."""
    kind = linux.rootfs_propagation
    operations: list[Operation[Init]] = [*compile_personality(linux)]
    operations.append(PivotRoot(shared=kind in {"shared", "rshared"}))
    return [*operations, SetPropagation(kind)] if kind.endswith(("shared", "unbindable")) else operations


def compile_personality(linux: Linux) -> list[SetPersonality]:
    """Return what sets the execution domain, as every process of the container has it."""
    return [SetPersonality(linux.personality.domain)] if linux.personality else []


def _rootfs(spec: Spec, bundle: str, overlay: MountOverlay | None, host_cgroups: str) -> list[Operation[Init]]:
    root = os.path.join(bundle, spec.root.path)
    propagation = ROOT_PROPAGATION.get(spec.linux.rootfs_propagation, "rslave")
    operations: list[Operation[Init]] = [SetPropagation(propagation)]
    operations += [HideBelow(overlay.target if overlay else root)] if propagation == "rshared" else []
    operations.append(overlay or BindRootfs(root))
    ids = userns.maps(spec.linux)
    mounts = [compile_mount(mount, f"mounts[{at}]", bundle, host_cgroups, ids) for at, mount in enumerate(spec.mounts)]
    operations += mounts
    if not any(isinstance(one, BindMount) and os.path.normpath(one.target) == "/dev" for one in mounts):
        operations += _devices(spec.linux.devices)
    with asked_by("linux.sysctl"):
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


def _identity(spec: Spec, new: tuple[str, ...]) -> list[Operation[Init]]:
    operations: list[Operation[Init]] = [SetHostname(spec.hostname)] if spec.hostname and "uts" in new else []
    with asked_by("domainname"):
        return operations + plan_sysctls({"kernel.domainname": spec.domainname} if spec.domainname else {}, new)


def compile_birth(preserved: int = 0) -> list[Operation[Init]]:
    """Return what comes first in a process that will be a container's: it lets go of what it has of the shim.

    ``preserved`` descriptors from 3 on stay open: the caller's, meant for the program.
    """
    return [Undumpable(), CloseInherited(tuple(range(3, 3 + preserved))), SetUmask(0), NewKeyring()]


def compile_oom_score(process: Process) -> list[SetOomScoreAdj]:
    """Return what sets the oom_score_adj: first, through the host's /proc, for the container may fake its own."""
    with asked_by("process.oomScoreAdj"):
        return [] if process.oom_score_adj is None else [SetOomScoreAdj(process.oom_score_adj)]


def compile_labels(process: Process) -> list[Operation[object]]:
    """Return what asks the security modules to confine the program: early, through the host's /proc as well."""
    operations: list[Operation[object]] = []
    if process.apparmor_profile:
        operations.append(SetAppArmorProfile(process.apparmor_profile))
    if process.selinux_label:
        operations.append(SetSelinuxLabel(process.selinux_label))
    return operations


def compile_affinity(affinity: Affinity) -> tuple[list[Operation[object]], list[Operation[object]]]:
    """Return what chooses an exec'd process's CPUs: in its stage, and when it is in the container's cgroup."""
    initial, final = (
        [SetAffinity(cpu_list(text, f"process.execCPUAffinity.{name}"))] if text else []
        for name, text in (("initial", affinity.initial), ("final", affinity.final))
    )
    return [*initial], [*final]


def compile_process(
    process: Process, last_cap: int, *, console: bool, filter: Filter | None = None
) -> list[Operation[Init]]:
    """Return the operations that turn a stage inside a container into ``process``: the tail of init, and of exec.

    CAP_SYS_ADMIN is kept until execve takes it: a filter is loaded with it, and /proc/self/exe made blank.
    """
    if not process.args:
        raise InvalidInput("use the spec", "process.args is empty", "name a command")
    if not process.cwd.startswith("/"):
        raise InvalidInput("use the spec", f"process.cwd, {process.cwd!r}, is not absolute", "begin it with /")
    size = process.console_size
    terminal = OpenTerminal(size.height if size else 0, size.width if size else 0, console, process.user.uid)
    sets, user = process.capabilities, process.user
    operations: list[Operation[Init]] = [NewSession(), terminal if process.terminal else Stdio()]
    operations += _rlimits(process)
    operations += _scheduling(process)
    operations += [NoNewPrivileges()] if process.no_new_privileges else []
    operations += [
        Chdir(process.cwd),
        DropBounding(_capabilities(sets, "bounding"), last_cap),
        SetCredentials(
            uid=user.uid,
            gid=user.gid,
            groups=user.additional_gids,
            effective=_capabilities(sets, "effective"),
            permitted=_capabilities(sets, "permitted"),
            inheritable=_capabilities(sets, "inheritable"),
            ambient=_capabilities(sets, "ambient"),
            until_execve=numbers(["CAP_SYS_ADMIN"]),
        ),
        SetUmask(0o022 if user.umask is None else user.umask),
        FindExecutable(process.args[0], search_path(process.env)),
        *([] if any(entry.startswith("HOME=") for entry in process.env) else [FindHome(user.uid)]),
        WaitForStart(),
        *([LoadFilter(filter)] if filter else []),
        Execute(process.args, process.env),
    ]
    return operations


def _capabilities(sets: Capabilities, which: str) -> frozenset[int]:
    with asked_by(f"process.capabilities.{which}"):
        return numbers(getattr(sets, which))


def _rlimits(process: Process) -> Iterator[SetRlimit]:
    for index, limit in enumerate(process.rlimits):
        with asked_by(f"process.rlimits[{index}]"):
            yield SetRlimit(limit.type, limit.soft, limit.hard)


def _scheduling(process: Process) -> list[Operation[Init]]:
    """Return what needs CAP_SYS_NICE, and so comes before rights are given up."""
    asked, io = process.scheduler, process.io_priority
    operations: list[Operation[Init]] = [SetIoPriority(io.level, io.priority)] if io else []
    if asked:
        times = (asked.runtime, asked.deadline, asked.period)
        operations.append(SetScheduler(asked.policy, asked.flags, asked.nice, asked.priority, *times))
    return operations


def search_path(env: tuple[str, ...]) -> tuple[str, ...]:
    """Return the directories of PATH in an environment."""
    found = [entry.partition("=")[2] for entry in env if entry.startswith("PATH=")]
    return tuple(part or "." for part in (found[-1] if found else DEFAULT_PATH).split(":"))
