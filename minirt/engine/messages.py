"""The CRI's messages and the engine's records, each turned into the other.

Pure but for the look at what a message names on this node: devices, and seccomp profiles.
"""

import signal
from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import structs

from minirt.cgroups.limits import DEFAULT_PERIOD_US
from minirt.cgroups.resources import Cpu, DeviceRule, HugepageLimit, Memory, Resources
from minirt.crimessages import api_pb2 as cri
from minirt.engine import hostpaths, idmessages
from minirt.engine.confinement import PROFILES, refuse, refuse_selinux, seccomp_of, security
from minirt.engine.devices import devices_at, rules_for
from minirt.engine.records import (
    CDI_ANNOTATIONS,
    CRI,
    ContainerConfig,
    ContainerRecord,
    Mode,
    Port,
    SandboxConfig,
    SandboxRecord,
)
from minirt.errors import InvalidInput
from minirt.images.image import Image
from minirt.oci.spec import Device
from minirt.shim.status import Status

if TYPE_CHECKING:
    from minirt.images.credentials import Credentials

MODES: dict[int, Mode] = {
    cri.NamespaceMode.POD: "pod",
    cri.NamespaceMode.CONTAINER: "private",
    cri.NamespaceMode.NODE: "host",
    cri.NamespaceMode.TARGET: "private",
}
PROTOCOLS = {cri.Protocol.TCP: "tcp", cri.Protocol.UDP: "udp", cri.Protocol.SCTP: "sctp"}
START_ERROR_CODE = 128
HALF_OF_REALTIME = 15
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
        InvalidInput: it has no name.
        Unsupported: something this version does not do; it is named.
    """
    if not config.metadata.name:
        raise InvalidInput("make a sandbox", "its configuration names no pod", "give it metadata")
    linux = config.linux
    context = linux.security_context
    options = context.namespace_options
    refuse_selinux(context)
    refuse(seccomp_of(context)[0] == PROFILES.Localhost, "a seccomp profile of one's own for a sandbox")
    dns = config.dns_config
    uid_map, gid_map = idmessages.maps(options)
    return SandboxConfig(
        name=config.metadata.name,
        uid=config.metadata.uid,
        namespace=config.metadata.namespace,
        attempt=config.metadata.attempt,
        owner=owner,
        hostname=config.hostname,
        network="host" if options.network == cri.NamespaceMode.NODE else "bridge",
        pid=_sandbox_mode(options.pid),
        ipc=_sandbox_mode(options.ipc),
        cgroup=linux.cgroup_parent,
        resources=pod_resources(linux.resources, linux.overhead),
        sysctls=dict(linux.sysctls),
        dns_servers=tuple(dns.servers),
        dns_searches=tuple(dns.searches),
        dns_options=tuple(dns.options),
        ports=tuple(_port(mapping) for mapping in config.port_mappings if mapping.host_port),
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        log_directory=config.log_directory,
        privileged=context.privileged,
        trace=trace,
        uid_map=uid_map,
        gid_map=gid_map,
    )


def _sandbox_mode(mode: int) -> Mode:
    if mode == cri.NamespaceMode.TARGET:
        raise InvalidInput(
            "make the sandbox", "the namespace mode TARGET is a container's", "use POD, CONTAINER or NODE"
        )
    return MODES[mode]


def _target(options: cri.NamespaceOption) -> str:
    """Return the container whose PID namespace is to be joined, "" for none. Raises InvalidInput: it is not named."""
    if options.pid != cri.NamespaceMode.TARGET:
        return ""
    if not options.target_id:
        raise InvalidInput("use the PID mode TARGET", "it names no container", "give target_id")
    return options.target_id


def _port(mapping: cri.PortMapping) -> Port:
    """Return a port of the host; an empty address is each one of both families. Raises InvalidInput: its address."""
    from ipaddress import IPv6Address, ip_address

    protocol = PROTOCOLS[mapping.protocol]
    what = f"map port {mapping.host_port} of {mapping.host_ip}"
    try:
        address = ip_address(mapping.host_ip) if mapping.host_ip else None
    except ValueError as error:
        raise InvalidInput(what, str(error), "give an address of this node, or none for all") from error
    if isinstance(address, IPv6Address) and (address.scope_id or address.ipv4_mapped):
        raise InvalidInput(
            what, "it is of one link, or an IPv4 address", "give an address of this node, or none for all"
        )
    return Port(mapping.container_port, mapping.host_port, protocol, mapping.host_ip)  # type: ignore[arg-type]


def container_config(config: cri.ContainerConfig, log_directory: str) -> ContainerConfig:
    """Return what a ContainerConfig asks for.

    Raises:
        InvalidInput: a group without a user; a seccomp profile that is missing or wrong.
        NotFound: a CDI device.
        Unsupported: something this version does not do; it is named.
    """
    if not config.metadata.name:
        raise InvalidInput("make a container", "its configuration does not name it", "give it metadata")
    context = config.linux.security_context
    limits = config.linux.resources
    nodes, rules = _devices(config.devices)
    found = ContainerConfig(
        name=config.metadata.name,
        image=config.image.user_specified_image or config.image.image,
        attempt=config.metadata.attempt,
        command=tuple(config.command),
        args=tuple(config.args),
        env=tuple((pair.key, pair.value) for pair in config.envs),
        cwd=config.working_dir,
        volumes=tuple(hostpaths.volume(one) for one in config.mounts if not one.image.image),
        images=tuple(hostpaths.image_volume(one) for one in config.mounts if one.image.image),
        devices=nodes,
        security=security(context),
        resources=structs.replace(resources(limits), devices=rules),
        oom_score_adj=limits.oom_score_adj,  # 0 where nobody asks: the server's own is not theirs
        pid=MODES[context.namespace_options.pid] if context.HasField("namespace_options") else None,
        pid_of=_target(context.namespace_options),
        terminal=config.tty,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        stop_signal=_signal_name(config.stop_signal),
        log_path=f"{log_directory}/{config.log_path}" if log_directory and config.log_path else "",
        labels=dict(config.labels),
        annotations=dict(config.annotations),
    )
    if not config.CDI_devices and not any(key.startswith(CDI_ANNOTATIONS) for key in found.annotations):
        return found
    from minirt.engine import cdi

    return cdi.applied(found, [*(one.name for one in config.CDI_devices), *cdi.annotated(found.annotations)])


def _signal_name(asked: cri.Signal.ValueType) -> str:
    """Return a signal in the engine's words, "" for the image's."""
    name = cri.Signal.Name(asked).removeprefix("RUNTIME_DEFAULT")
    return name.replace("PLUS", "+").replace("MINUS", "-")


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
    return Resources(
        memory=memory if memory != Memory() else None,
        cpu=cpu if cpu != Cpu() else None,
        hugepage_limits=tuple(
            HugepageLimit(page.page_size, page.limit) for page in limits.hugepage_limits if page.limit
        ),
        unified=dict(limits.unified),
    )


def pod_resources(limits: cri.LinuxContainerResources, overhead: cri.LinuxContainerResources) -> Resources:
    """Return what a pod may use: its containers' limits, and what it takes to run them beside that.

    What is not limited stays so, whatever the overhead.
    """
    found = cri.LinuxContainerResources()
    found.CopyFrom(limits)
    for name in ("cpu_shares", "memory_limit_in_bytes"):
        if getattr(limits, name) > 0:
            setattr(found, name, getattr(limits, name) + getattr(overhead, name))
    if limits.cpu_quota > 0 and overhead.cpu_quota > 0:
        period = limits.cpu_period or DEFAULT_PERIOD_US
        found.cpu_quota += overhead.cpu_quota * period // (overhead.cpu_period or DEFAULT_PERIOD_US)
    return resources(found)


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
        runtime_handler=record.config.handler,
    )


def sandbox_status(record: SandboxRecord, ready: bool) -> cri.PodSandboxStatus:
    """Return a sandbox as PodSandboxStatus shows it."""
    config = record.config
    mode = cri.NamespaceMode
    own = {"pod": mode.POD, "private": mode.CONTAINER, "host": mode.NODE}
    options = cri.NamespaceOption(
        network=mode.NODE if config.network == "host" else mode.POD, pid=own[config.pid], ipc=own[config.ipc]
    )
    if config.uid_map:
        options.userns_options.CopyFrom(idmessages.of_maps(config.uid_map, config.gid_map))
    return cri.PodSandboxStatus(
        id=record.id,
        metadata=sandbox_metadata(record),
        state=sandbox_state(ready),
        created_at=record.created_at,
        network=cri.PodSandboxNetworkStatus(
            ip=record.address, additional_ips=[cri.PodIP(ip=one) for one in record.further_addresses]
        ),
        linux=cri.LinuxPodSandboxStatus(namespaces=cri.Namespace(options=options)),
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler=config.handler,
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
    return cri.ContainerStatus(
        id=record.id,
        metadata=cri.ContainerMetadata(name=config.name, attempt=config.attempt),
        state=STATES[status.state],
        created_at=record.created_at,
        started_at=status.started_at,
        finished_at=status.finished_at,
        exit_code=_exit_code(record, status) if exited else 0,
        image=cri.ImageSpec(image=config.image),
        image_ref=record.image_id,
        image_id=record.image_id,
        reason=status.reason,
        message=status.message or "\n".join(status.warnings),
        labels=config.labels,
        annotations=config.annotations,
        mounts=[*map(hostpaths.message, config.volumes), *map(hostpaths.image_message, config.images)],
        log_path=record.log_path,
        resources=cri.ContainerResources(linux=limits_message(config)),
        user=_user(record),
        stop_signal=_signal(record.stop_signal),
    )


def _user(record: ContainerRecord) -> cri.ContainerUser:
    who = record.user
    return cri.ContainerUser(
        linux=cri.LinuxContainerUser(uid=who.uid, gid=who.gid, supplemental_groups=who.additional_gids)
    )


def _signal(number: int) -> cri.Signal.ValueType:
    """Return a signal in the CRI's words; the C library keeps the first real-time signals for itself."""
    try:
        return cri.Signal.Value(signal.Signals(number).name.replace("+", "PLUS").replace("-", "MINUS"))
    except ValueError:
        offset = number - signal.SIGRTMIN
        name = f"SIGRTMINPLUS{offset}" if offset <= HALF_OF_REALTIME else f"SIGRTMAXMINUS{signal.SIGRTMAX - number}"
        return cri.Signal.Value(name)


def limits_message(config: ContainerConfig) -> cri.LinuxContainerResources:
    """Return a container's limits as the CRI has them."""
    found = config.resources
    cpu, memory = found.cpu or Cpu(), found.memory or Memory()
    return cri.LinuxContainerResources(
        cpu_shares=cpu.shares or 0,
        cpu_quota=cpu.quota or 0,
        cpu_period=cpu.period or 0,
        cpuset_cpus=cpu.cpus,
        cpuset_mems=cpu.mems,
        memory_limit_in_bytes=memory.limit or 0,
        memory_swap_limit_in_bytes=memory.swap or 0,
        oom_score_adj=config.oom_score_adj or 0,
        hugepage_limits=[
            cri.HugepageLimit(page_size=page.page_size, limit=page.limit) for page in found.hugepage_limits
        ],
        unified=found.unified,
    )


def _exit_code(record: ContainerRecord, status: Status) -> int:
    """Return an exit code; other kubelets than ours know from containerd that what is wrong with a start is 128."""
    return START_ERROR_CODE if record.owner == CRI and status.reason == "StartError" else status.exit_code


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
