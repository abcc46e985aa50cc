"""From what was asked for and what the image says to an OCI runtime spec. Pure: docker's and containerd's defaults.

Source: moby's oci/defaults.go and containerd's pkg/cri/opts for the values; docs/glossary.md for the words.
"""

import os
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from msgspec import structs

from minirt import paths
from minirt.cgroups.devices import ALLOW_ALL
from minirt.cgroups.resources import DeviceRule
from minirt.engine import imagevolumes, inits
from minirt.engine.devices import DEFAULT_RULES
from minirt.engine.records import ContainerConfig, SandboxConfig, SandboxRecord, Security, Volume
from minirt.engine.users import Identity
from minirt.errors import InvalidInput
from minirt.images.image import ImageConfig
from minirt.namespaces.idmap import Map
from minirt.oci import VERSION
from minirt.oci.compile import DEFAULT_PATH
from minirt.oci.hooks import Hooks
from minirt.oci.spec import Capabilities, Device, IdMapping, Linux, Mount, Namespace, Process, Root, Spec, User
from minirt.pod.sandbox import pin_path
from minirt.security import labels
from minirt.security.capabilities import capability_sets
from minirt.security.conditional import here, resolve
from minirt.security.profile import Seccomp
from minirt.security.syscalls import default_profile
from minirt.shim import status as statuses

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

SHARED_FILES = ("hosts", "hostname", "resolv.conf")


def compile_container(
    config: ContainerConfig,
    container_id: str,
    sandbox: SandboxRecord,
    image: ImageConfig,
    identity: Identity,
    held: frozenset[str],
    devices: tuple[Device, ...] = (),
    volumes: imagevolumes.Layers = MappingProxyType({}),
) -> Spec:
    """Return the spec of a container of a sandbox.

    ``identity`` is who it runs as; ``held`` are the capabilities that can be given; ``devices`` the host's, for a
    privileged container; ``volumes`` the layers of images that it mounts.

    Raises:
        InvalidInput: nothing to execute, or capabilities that make no sense.
    """
    security = config.security
    privileged = security.privileged
    sets = capability_sets(
        security.add,
        security.drop,
        held=held,
        privileged=privileged,
        uid=identity.uid,
        ambient=security.ambient,
    )
    process = Process(
        args=command_of(config, image),
        cwd=config.cwd or image.working_dir or "/",
        env=environment(config, image, sandbox, identity),
        user=User(uid=identity.uid, gid=identity.gid, additional_gids=identity.groups),
        terminal=config.terminal,
        capabilities=Capabilities(sets.bounding, sets.effective, sets.permitted, sets.inheritable, sets.ambient),
        rlimits=config.rlimits,
        no_new_privileges=security.no_new_privileges,
        apparmor_profile=_apparmor_of(security),
        oom_score_adj=config.oom_score_adj,
    )
    masked = MASKED if security.masked is None else security.masked
    readonly = READONLY if security.readonly is None else security.readonly
    return Spec(
        oci_version=VERSION,
        process=process,
        root=Root("rootfs", readonly=security.readonly_rootfs),
        hostname=sandbox.config.hostname,
        mounts=mounts(config, sandbox, volumes),
        linux=Linux(
            namespaces=namespaces(sandbox, config),
            cgroups_path=f"{sandbox.config.cgroup}/{container_id}",
            resources=structs.replace(config.resources, devices=device_rules(config)),
            devices=tuple({node.path: node for node in (*devices, *config.devices)}.values()),
            rootfs_propagation=_rootfs_propagation(config),
            masked_paths=() if privileged else masked,
            readonly_paths=() if privileged else readonly,
            seccomp=seccomp_of(security, sets.bounding),
            uid_mappings=_mappings(sandbox.config.uid_map),
            gid_mappings=_mappings(sandbox.config.gid_map),
        ),
        annotations=config.annotations,
        hooks=Hooks(create_container=config.hooks),
    )


def device_rules(config: ContainerConfig) -> tuple[DeviceRule, ...]:
    """Return which devices may be used: those of every container and the container's own, or all."""
    return (ALLOW_ALL,) if config.security.privileged else (*DEFAULT_RULES, *config.resources.devices)


def seccomp_of(security: Security, bounding: tuple[str, ...]) -> Seccomp | None:
    """Return the seccomp profile, as far as it holds on this machine for who may have these capabilities.

    The default one is not for privileged containers; a profile of one's own is for them, too, as in docker.
    """
    choice = security.seccomp
    if choice == "unconfined" or (choice == "default" and security.privileged):
        return None
    return resolve(default_profile() if choice == "default" else choice, bounding, here())


def _apparmor_of(security: Security) -> str:
    """Return the name of the AppArmor profile, "" for none. The default one is not for privileged containers."""
    if security.apparmor != "default":
        return security.apparmor
    return "" if security.privileged else labels.default_profile()


def command_of(config: ContainerConfig, image: ImageConfig) -> tuple[str, ...]:
    """Return argv: a ``command`` of one's own replaces all of the image's, ``args`` only its arguments."""
    own = image.entrypoint + (config.args or image.cmd)
    args = config.command + config.args if config.command else own
    if not args:
        raise InvalidInput(
            f"start {config.name}", f"neither it nor the image {config.image} names a command", "name one"
        )
    return (inits.PLACE, "--", *args) if config.init else args


def environment(
    config: ContainerConfig, image: ImageConfig, sandbox: SandboxRecord, identity: Identity
) -> tuple[str, ...]:
    """Return the environment: docker's defaults, the image's over them, one's own over these."""
    found = {"PATH": DEFAULT_PATH, "HOSTNAME": sandbox.config.hostname, "HOME": identity.home}
    if config.terminal:
        found["TERM"] = "xterm"
    found |= dict(entry.partition("=")[::2] for entry in image.env)
    return tuple(f"{key}={value}" for key, value in (found | dict(config.env)).items())


def namespaces(sandbox: SandboxRecord, config: ContainerConfig) -> tuple[Namespace, ...]:
    """Return a container's namespaces: its own, and those of the pod by the paths they are pinned at.

    Raises:
        InvalidInput: it wants the pod's PID namespace, and the pod has none.
    """
    directory = str(paths.sandbox_dir(sandbox.id))
    shared = [Namespace(kind, pin_path(directory, kind)) for kind in shared_kinds(sandbox.config.network, sandbox)]  # type: ignore[arg-type]
    own = [Namespace("mount"), Namespace("cgroup")]
    mode = config.pid or sandbox.config.pid
    if config.pid_of:
        own.append(Namespace("pid", f"/proc/{target_pid(config)}/ns/pid"))
    elif mode == "private":
        own.append(Namespace("pid"))
    elif mode == "pod" and sandbox.config.pid == "pod":
        own.append(Namespace("pid", pin_path(directory, "pid")))
    elif mode == "pod":
        why = "its sandbox was made without one for all"
        raise InvalidInput(f"give {config.name} the pod's PID namespace", why, "ask for the mode POD there, too")
    if sandbox.config.uid_map:
        own.append(Namespace("user", pin_path(directory, "user")))
    return (*own, *shared)


def target_pid(config: ContainerConfig) -> int:
    """Return the host pid of the container whose PID namespace this one joins. Raises InvalidInput: it has ended."""
    status = statuses.read(config.pid_of)
    if status is None or status.state != "running" or not status.is_alive():
        why = f"the container {config.pid_of} does not run"
        raise InvalidInput(f"give {config.name} another container's PID namespace", why, "start that one first")
    return status.pid


def _mappings(lines: Map) -> tuple[IdMapping, ...]:
    return tuple(IdMapping(*line) for line in lines)


def shared_kinds(network: str, sandbox: SandboxRecord) -> tuple[str, ...]:
    """Return the kinds of namespace that a sandbox pins.

    A pod with the host's network has the host's name too; a container of its own can be called otherwise.
    """
    kinds: tuple[str, ...] = () if network == "host" else ("network",)
    kinds += ("uts",) if network != "host" or sandbox.config.single else ()
    return (*kinds, "ipc") if sandbox.config.ipc != "host" else kinds


def mounts(
    config: ContainerConfig, sandbox: SandboxRecord, images: imagevolumes.Layers = MappingProxyType({})
) -> tuple[Mount, ...]:
    """Return what is mounted: the kernel's file systems, the pod's files, then the user's volumes, parents first."""
    directory = paths.sandbox_dir(sandbox.id)
    access = "rw" if config.security.privileged else "ro"
    quiet = ("nosuid", "noexec", "nodev")
    shm = "/dev/shm" if sandbox.config.ipc == "host" else str(directory / "shm")
    found = [
        Mount("/proc", "proc", "proc", quiet),
        Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        Mount(
            "/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
        ),
        Mount("/sys", "sysfs", "sysfs", (*quiet, access)),
        Mount("/sys/fs/cgroup", "cgroup", "cgroup", (*quiet, "relatime", access)),
        Mount("/dev/mqueue", "mqueue", "mqueue", quiet),
        Mount("/dev/shm", "bind", shm, ("rbind", *quiet)),
    ]
    taken = {os.path.normpath(volume.destination) for volume in config.volumes}
    taken |= {os.path.normpath(one.destination) for one in config.images}
    taken |= {one.destination for one in config.mounts}
    taken |= {one.destination for one in config.tmpfs}
    for name in SHARED_FILES:
        if f"/etc/{name}" not in taken:
            found.append(Mount(f"/etc/{name}", "bind", str(directory / name), ("rbind", "rprivate")))
    found = [mount for mount in found if mount.destination not in taken]
    if config.init:
        found.append(Mount(inits.PLACE, "bind", config.init, ("bind", "ro")))
    own = [_volume(volume, sandbox.config) for volume in config.volumes]
    own += imagevolumes.mounts(config, images, mapped=bool(sandbox.config.uid_map))
    own += config.mounts
    own += [Mount(one.destination, "tmpfs", "tmpfs", one.options) for one in config.tmpfs]
    return (*found, *sorted(own, key=_depth))


def _rootfs_propagation(config: ContainerConfig) -> Literal["", "rshared"]:
    """Return how the root's mounts propagate: what a container mounts can reach the host only from a shared root."""
    return "rshared" if any(volume.propagation == "shared" for volume in config.volumes) else ""


def _depth(mount: Mount) -> int:
    return Path(mount.destination).as_posix().rstrip("/").count("/")


def _volume(volume: Volume, config: SandboxConfig) -> Mount:
    """Return a volume's mount. In a user namespace its files belong to the same users as on disk, as in Kubernetes:
    what the container's root writes is root's. It may have maps of its own."""
    access = ("rro",) if volume.recursive else ("ro",) if volume.readonly else ()
    options = ("rbind", f"r{volume.propagation}", *access)
    uids, gids = _mappings(volume.uid_map or config.uid_map), _mappings(volume.gid_map or config.gid_map)
    return Mount(volume.destination, "bind", volume.source, options, uids, gids)
