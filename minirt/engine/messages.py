"""The CRI's messages and the engine's records, each turned into the other.

Pure but for the look at what a message names on this node: devices, and seccomp profiles.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from minirt.cgroups.resources import Cpu, DeviceRule, Memory, Resources
from minirt.crimessages import api_pb2 as cri
from minirt.engine.devices import devices_at, rules_for
from minirt.engine.records import (
    ContainerConfig,
    ContainerRecord,
    Mode,
    Port,
    SandboxConfig,
    SandboxRecord,
    Security,
    Volume,
)
from minirt.errors import InvalidInput, Unsupported
from minirt.images.image import Image
from minirt.oci.spec import Device
from minirt.security import profile as profiles
from minirt.shim.status import Status

if TYPE_CHECKING:
    from minirt.images.credentials import Credentials

MODES: dict[int, Mode] = {
    cri.NamespaceMode.POD: "pod",
    cri.NamespaceMode.CONTAINER: "private",
    cri.NamespaceMode.NODE: "host",
}
PROFILES = cri.SecurityProfile.ProfileType
PROTOCOLS = {cri.Protocol.TCP: "tcp", cri.Protocol.UDP: "udp", cri.Protocol.SCTP: "sctp"}
STATES = {
    "created": cri.ContainerState.CONTAINER_CREATED,
    "running": cri.ContainerState.CONTAINER_RUNNING,
    "exited": cri.ContainerState.CONTAINER_EXITED,
    "unknown": cri.ContainerState.CONTAINER_UNKNOWN,
}


def sandbox_config(config: cri.PodSandboxConfig, owner: str, *, trace: bool = False) -> SandboxConfig:
    """Return what a PodSandboxConfig asks for.

    Its own seccomp profile (RuntimeDefault, from a kubelet) is for a process of the pod's own that runs a program; here
    that is none: pause is a loop in C that only waits.

    Raises:
        Unsupported: something this version does not do; it is named.
    """
    linux = config.linux
    context = linux.security_context
    options = context.namespace_options
    _refuse(options.HasField("userns_options") and options.userns_options.mode == cri.NamespaceMode.POD, "hostUsers")
    _refuse_profiles(context)
    _refuse(context.seccomp.profile_type == PROFILES.Localhost, "a seccomp profile of one's own for a sandbox")
    dns = config.dns_config
    return SandboxConfig(
        name=config.metadata.name,
        uid=config.metadata.uid,
        namespace=config.metadata.namespace,
        attempt=config.metadata.attempt,
        owner=owner,
        hostname=config.hostname,
        network="host" if options.network == cri.NamespaceMode.NODE else "bridge",
        pid=_mode(options.pid),
        ipc=_mode(options.ipc),
        cgroup=linux.cgroup_parent,
        resources=resources(linux.resources),
        sysctls=dict(linux.sysctls),
        dns_servers=tuple(dns.servers),
        dns_searches=tuple(dns.searches),
        dns_options=tuple(dns.options),
        ports=tuple(_port(mapping) for mapping in config.port_mappings if mapping.host_port),
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        log_directory=config.log_directory,
        trace=trace,
    )


def _mode(mode: int) -> Mode:
    if mode not in MODES:
        raise Unsupported("make the sandbox", "the namespace mode TARGET is not supported yet", "use POD or CONTAINER")
    return MODES[mode]


def _port(mapping: cri.PortMapping) -> Port:
    protocol = PROTOCOLS[mapping.protocol]
    return Port(mapping.container_port, mapping.host_port, protocol, mapping.host_ip)  # type: ignore[arg-type]


def _refuse(asked: bool, name: str) -> None:
    if asked:
        raise Unsupported(f"use {name}", "it is not supported yet", "leave it out")


def _refuse_profiles(context: cri.LinuxSandboxSecurityContext | cri.LinuxContainerSecurityContext) -> None:
    """Refuse what would be ignored: an AppArmor profile other than none, SELinux labels, seccomp's old field."""
    old = context.seccomp_profile_path not in ("", "unconfined") and not context.HasField("seccomp")
    _refuse(old, "seccomp_profile_path without seccomp")
    loaded = context.HasField("apparmor") and context.apparmor.profile_type != PROFILES.Unconfined
    _refuse(loaded, "an apparmor profile")
    _refuse(bool(context.selinux_options.type or context.selinux_options.level), "SELinux options")


def _seccomp(context: cri.LinuxContainerSecurityContext) -> profiles.Choice:
    """Return a container's seccomp profile. None named is none, and so is a privileged container's, as in containerd.

    Raises:
        InvalidInput: a profile on this node is missing or wrong.
    """
    asked = context.seccomp
    if context.privileged or not context.HasField("seccomp") or asked.profile_type == PROFILES.Unconfined:
        return "unconfined"
    if asked.profile_type == PROFILES.RuntimeDefault:
        return "default"
    return profiles.load(Path(asked.localhost_ref))


def container_config(config: cri.ContainerConfig, log_directory: str) -> ContainerConfig:
    """Return what a ContainerConfig asks for.

    Raises:
        InvalidInput: a group without a user; a seccomp profile that is missing or wrong.
        Unsupported: something this version does not do; it is named.
    """
    context = config.linux.security_context
    _refuse_profiles(context)
    _refuse(bool(config.CDI_devices), "CDI devices")
    limits = config.linux.resources
    nodes, rules = _devices(config.devices)
    return ContainerConfig(
        name=config.metadata.name,
        image=config.image.user_specified_image or config.image.image,
        attempt=config.metadata.attempt,
        command=tuple(config.command),
        args=tuple(config.args),
        env=tuple((pair.key, pair.value) for pair in config.envs),
        cwd=config.working_dir,
        volumes=tuple(_volume(mount) for mount in config.mounts),
        devices=nodes,
        security=_security(context),
        resources=structs.replace(resources(limits), devices=rules),
        oom_score_adj=limits.oom_score_adj if config.linux.HasField("resources") else None,
        terminal=config.tty,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        stop_signal=cri.Signal.Name(config.stop_signal).removeprefix("RUNTIME_DEFAULT").replace("PLUS", "+"),
        log_path=f"{log_directory}/{config.log_path}" if log_directory and config.log_path else "",
        labels=dict(config.labels),
        annotations=dict(config.annotations),
    )


def _security(context: cri.LinuxContainerSecurityContext) -> Security:
    user = str(context.run_as_user.value) if context.HasField("run_as_user") else context.run_as_username
    if context.HasField("run_as_group"):
        if not user:
            raise InvalidInput("use runAsGroup", "it is given without a user", "give runAsUser, too")
        user += f":{context.run_as_group.value}"
    capabilities = context.capabilities
    return Security(
        user=user,
        groups=tuple(context.supplemental_groups),
        image_groups=context.supplemental_groups_policy == cri.SupplementalGroupsPolicy.Merge,
        add=tuple(capabilities.add_capabilities),
        drop=tuple(capabilities.drop_capabilities),
        ambient=tuple(capabilities.add_ambient_capabilities),
        privileged=context.privileged,
        readonly_rootfs=context.readonly_rootfs,
        no_new_privileges=context.no_new_privs,
        masked=tuple(context.masked_paths),
        readonly=tuple(context.readonly_paths),
        seccomp=_seccomp(context),
    )


def _volume(mount: cri.Mount) -> Volume:
    _refuse(mount.propagation == cri.MountPropagation.PROPAGATION_BIDIRECTIONAL, "mountPropagation: Bidirectional")
    _refuse(mount.recursive_read_only, "recursiveReadOnly")
    _refuse(mount.HasField("image") and bool(mount.image.image), "an image volume")
    _refuse(bool(mount.uidMappings or mount.gidMappings), "an idmapped mount")
    slave = mount.propagation == cri.MountPropagation.PROPAGATION_HOST_TO_CONTAINER
    return Volume(mount.host_path, mount.container_path, mount.readonly, "slave" if slave else "private")


def _devices(asked: Iterable[cri.Device]) -> tuple[tuple[Device, ...], tuple[DeviceRule, ...]]:
    """Return the nodes of devices, and the rules that let them be used."""
    nodes: list[Device] = []
    rules: list[DeviceRule] = []
    for device in asked:
        found = devices_at(device.host_path, device.container_path)
        nodes += found
        rules += rules_for(found, device.permissions or "rwm")
    return tuple(nodes), tuple(rules)


def resources(limits: cri.LinuxContainerResources) -> Resources:
    """Return a LinuxContainerResources as the OCI spec's resources; 0 is not given."""
    cpu = Cpu(
        shares=limits.cpu_shares or None,
        quota=limits.cpu_quota or None,
        period=limits.cpu_period or None,
        cpus=limits.cpuset_cpus,
        mems=limits.cpuset_mems,
    )
    memory = Memory(limit=limits.memory_limit_in_bytes or None, swap=limits.memory_swap_limit_in_bytes or None)
    _refuse(any(page.limit for page in limits.hugepage_limits), "a limit of huge pages")
    return Resources(
        memory=memory if memory != Memory() else None,
        cpu=cpu if cpu != Cpu() else None,
        unified=dict(limits.unified),
    )


def without_limits(config: ContainerConfig, kept: Resources) -> ContainerConfig:
    """Return ``config`` with the limits that this machine can keep."""
    return structs.replace(config, resources=kept)


def sandbox_state(ready: bool) -> cri.PodSandboxState.ValueType:
    """Return a sandbox's state."""
    return cri.PodSandboxState.SANDBOX_READY if ready else cri.PodSandboxState.SANDBOX_NOTREADY


def sandbox_metadata(record: SandboxRecord) -> cri.PodSandboxMetadata:
    """Return the four names of a sandbox."""
    config = record.config
    return cri.PodSandboxMetadata(name=config.name, uid=config.uid, namespace=config.namespace, attempt=config.attempt)


def sandbox_item(record: SandboxRecord, ready: bool) -> cri.PodSandbox:
    """Return a sandbox as ListPodSandbox shows it."""
    return cri.PodSandbox(
        id=record.id,
        metadata=sandbox_metadata(record),
        state=sandbox_state(ready),
        created_at=record.created_at,
        labels=record.config.labels,
        annotations=record.config.annotations,
    )


def sandbox_status(record: SandboxRecord, ready: bool) -> cri.PodSandboxStatus:
    """Return a sandbox as PodSandboxStatus shows it."""
    config = record.config
    mode = cri.NamespaceMode
    own = {"pod": mode.POD, "private": mode.CONTAINER, "host": mode.NODE}
    options = cri.NamespaceOption(
        network=mode.NODE if config.network == "host" else mode.POD, pid=own[config.pid], ipc=own[config.ipc]
    )
    return cri.PodSandboxStatus(
        id=record.id,
        metadata=sandbox_metadata(record),
        state=sandbox_state(ready),
        created_at=record.created_at,
        network=cri.PodSandboxNetworkStatus(ip=record.address),
        linux=cri.LinuxPodSandboxStatus(namespaces=cri.Namespace(options=options)),
        labels=config.labels,
        annotations=config.annotations,
    )


def container_item(record: ContainerRecord, status: Status) -> cri.Container:
    """Return a container as ListContainers shows it."""
    config = record.config
    return cri.Container(
        id=record.id,
        pod_sandbox_id=record.sandbox_id,
        metadata=cri.ContainerMetadata(name=config.name, attempt=config.attempt),
        image=cri.ImageSpec(image=config.image),
        image_ref=record.image_id,
        image_id=record.image_id,
        state=STATES[status.state],
        created_at=record.created_at,
        labels=config.labels,
        annotations=config.annotations,
    )


def container_status(record: ContainerRecord, status: Status) -> cri.ContainerStatus:
    """Return a container as ContainerStatus shows it."""
    config = record.config
    exited = status.state == "exited"
    slave = cri.MountPropagation.PROPAGATION_HOST_TO_CONTAINER
    private = cri.MountPropagation.PROPAGATION_PRIVATE
    return cri.ContainerStatus(
        id=record.id,
        metadata=cri.ContainerMetadata(name=config.name, attempt=config.attempt),
        state=STATES[status.state],
        created_at=record.created_at,
        started_at=status.started_at,
        finished_at=status.finished_at,
        exit_code=status.exit_code if exited else 0,
        image=cri.ImageSpec(image=config.image),
        image_ref=record.image_id,
        image_id=record.image_id,
        reason=status.reason,
        message=status.message or "\n".join(status.warnings),
        labels=config.labels,
        annotations=config.annotations,
        mounts=[
            cri.Mount(
                container_path=volume.destination,
                host_path=volume.source,
                readonly=volume.readonly,
                propagation=slave if volume.propagation == "slave" else private,
            )
            for volume in config.volumes
        ],
        log_path=record.log_path,
    )


def image(found: Image) -> cri.Image:
    """Return an image as ImageStatus and ListImages show it."""
    user = found.config.user.partition(":")[0]
    message = cri.Image(
        id=found.id,
        repo_tags=found.names,
        repo_digests=found.digests,
        size=found.size_bytes,
        username="" if user.isdigit() else user,
    )
    if user.isdigit():
        message.uid.value = int(user)
    return message


def credentials(auth: cri.AuthConfig) -> "Credentials | None":
    """Return what a PullImage brings along. Raises InvalidInput: its ``auth`` is not base64 of user:password."""
    from minirt.images.credentials import Entry, of_entry

    entry = Entry(auth.auth, auth.username, auth.password, auth.identity_token, auth.registry_token)
    return of_entry(entry, "read the credentials of the call")
