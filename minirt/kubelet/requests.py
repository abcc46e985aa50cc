"""A pod compiled to the CRI's requests. Pure: the same pod on the same node gives the same messages.

    Pod ─┬─▶ PodSandboxConfig   names, namespaces, DNS, ports, cgroup parent minirt/pod<uid> with the pod's limits
         └─▶ ContainerConfig    one a container and attempt: command, environment, mounts, user, capabilities, limits

The sandbox keeps the whole manifest in an annotation, so that whoever comes later (a new worker, ``pod inspect``) needs
nothing but the runtime. A container's annotation names its place in the manifest: it is the cause that the journal
shows for every step taken for that container.

Source: https://github.com/kubernetes/cri-api/blob/master/pkg/apis/runtime/v1/api.proto
"""

from pathlib import Path

from msgspec import Struct

from minirt import paths
from minirt.crimessages import api_pb2 as cri
from minirt.engine import idmessages
from minirt.engine.idranges import Ids
from minirt.errors import InvalidInput
from minirt.kubelet import environment, loading, names, resources
from minirt.kubelet.manifest import Container, Pod, SeccompProfile
from minirt.kubelet.node import Node

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
RESTART_COUNT = "io.kubernetes.container.restartCount"
MANIFEST = "minirt.io/pod"
CAUSE = "minirt.io/yaml"

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_PORT_PROTOCOLS = {"TCP": cri.Protocol.TCP, "UDP": cri.Protocol.UDP, "SCTP": cri.Protocol.SCTP}


class PulledImage(Struct, frozen=True):
    """An image that is here: its id, and the user it wants to run as (a number, or a name, or neither)."""

    id: str
    uid: int | None = None
    username: str = ""


def log_directory(pod: Pod) -> Path:
    """Return where the logs of a pod's containers are: ``<container>/<attempt>.log`` below it."""
    meta = pod.metadata
    return paths.logs_dir() / "pods" / f"{meta.namespace}_{meta.name}_{meta.uid}"


def cgroup_parent(pod: Pod, node: Node) -> str:
    """Return the pod's cgroup."""
    return f"{node.cgroup_root}/pod{pod.uid}"


def sandbox_config(pod: Pod, node: Node, attempt: int = 0, ids: Ids | None = None) -> cri.PodSandboxConfig:
    """Return what RunPodSandbox is asked for; ``ids`` are those of a pod with ``hostUsers: false``."""
    meta = pod.metadata
    return cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=meta.name, uid=meta.uid, namespace=meta.namespace, attempt=attempt),
        hostname="" if pod.spec.host_network else names.hostname(pod),
        log_directory=str(log_directory(pod)),
        dns_config=names.dns(pod, node),
        port_mappings=_port_mappings(pod),
        labels={**meta.labels, **_identity(pod)},
        annotations={**meta.annotations, MANIFEST: loading.dumps(pod)},
        linux=_linux_sandbox(pod, node, ids),
    )


def _identity(pod: Pod) -> dict[str, str]:
    meta = pod.metadata
    return {POD_NAME: meta.name, POD_NAMESPACE: meta.namespace, POD_UID: meta.uid}


def _port_mappings(pod: Pod) -> list[cri.PortMapping]:
    """Return the published ports; with the host's network every port is the host's already."""
    if pod.spec.host_network:
        return []
    return [
        cri.PortMapping(
            protocol=_PORT_PROTOCOLS[port.protocol],
            container_port=port.container_port,
            host_port=port.host_port,
            host_ip=port.host_ip,
        )
        for container in pod.spec.containers
        for port in container.ports
        if port.host_port
    ]


def _linux_sandbox(pod: Pod, node: Node, ids: Ids | None) -> cri.LinuxPodSandboxConfig:
    security = pod.spec.security_context
    context = cri.LinuxSandboxSecurityContext(
        namespace_options=namespace_options(pod, ids),
        supplemental_groups=_groups(pod),
        privileged=any(container.security_context.privileged for container in pod.all_containers),
    )
    if security.run_as_user is not None:
        context.run_as_user.value = security.run_as_user
        if security.run_as_group is not None:
            context.run_as_group.value = security.run_as_group
    return cri.LinuxPodSandboxConfig(
        cgroup_parent=cgroup_parent(pod, node),
        security_context=context,
        sysctls={sysctl.name.replace("/", "."): sysctl.value for sysctl in security.sysctls},
        resources=resources.of_pod(pod, node),
    )


def namespace_options(pod: Pod, ids: Ids | None = None) -> cri.NamespaceOption:
    """Return which namespaces are the host's, the pod's, a container's own; ``ids`` are a user namespace's."""
    spec, mode = pod.spec, cri.NamespaceMode
    pid = mode.NODE if spec.host_pid else mode.POD if spec.share_process_namespace else mode.CONTAINER
    options = cri.NamespaceOption(
        network=mode.NODE if spec.host_network else mode.POD,
        ipc=mode.NODE if spec.host_ipc else mode.POD,
        pid=pid,
    )
    if ids:
        options.userns_options.CopyFrom(idmessages.of_maps(ids.uid_map, ids.gid_map))
    return options


def _groups(pod: Pod) -> list[int]:
    security = pod.spec.security_context
    return [*security.supplemental_groups, *([] if security.fs_group is None else [security.fs_group])]


def container_config(
    pod: Pod,
    container: Container,
    *,
    attempt: int,
    image: PulledImage,
    pod_ips: tuple[str, ...],
    mounts: list[cri.Mount],
    node: Node,
    ids: Ids | None = None,
) -> cri.ContainerConfig:
    """Return what CreateContainer is asked for; ``attempt`` counts the container's restarts.

    Raises:
        InvalidInput: the container would run as root and has runAsNonRoot.
    """
    variables = environment.variables(pod, container, pod_ips, node)
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=container.name, attempt=attempt),
        image=cri.ImageSpec(image=image.id, user_specified_image=container.image),
        command=[environment.expand(word, variables) for word in container.command],
        args=[environment.expand(word, variables) for word in container.args],
        working_dir=container.working_dir,
        envs=[cri.KeyValue(key=name, value=value) for name, value in variables.items()],
        mounts=mounts,
        labels={**_identity(pod), CONTAINER_NAME: container.name},
        annotations={RESTART_COUNT: str(attempt), CAUSE: pod.path_of(container)},
        log_path=f"{container.name}/{attempt}.log",
        stdin=container.stdin,
        stdin_once=container.stdin_once,
        tty=container.tty,
        linux=cri.LinuxContainerConfig(
            resources=resources.of_container(pod, container, node),
            security_context=_security_context(pod, container, image, ids),
        ),
    )


def _security_context(
    pod: Pod, container: Container, image: PulledImage, ids: Ids | None
) -> cri.LinuxContainerSecurityContext:
    own, shared = container.security_context, pod.spec.security_context
    context = cri.LinuxContainerSecurityContext(
        capabilities=cri.Capability(add_capabilities=own.capabilities.add, drop_capabilities=own.capabilities.drop),
        privileged=own.privileged,
        namespace_options=namespace_options(pod, ids),
        readonly_rootfs=own.read_only_root_filesystem,
        supplemental_groups=_groups(pod),
        no_new_privs=own.allow_privilege_escalation is False,
        masked_paths=() if own.privileged else MASKED_PATHS,
        readonly_paths=() if own.privileged else READONLY_PATHS,
        seccomp=_seccomp(own.seccomp_profile or shared.seccomp_profile),
    )
    if profile := own.app_armor_profile or shared.app_armor_profile:
        context.apparmor.profile_type = cri.SecurityProfile.ProfileType.Value(profile.type)
        context.apparmor.localhost_ref = profile.localhost_profile
    _set_user(context, _first(own.run_as_user, shared.run_as_user), image)
    group = _first(own.run_as_group, shared.run_as_group)
    if group is not None:
        context.run_as_group.value = group
    if own.run_as_non_root or (own.run_as_non_root is None and shared.run_as_non_root):
        _require_non_root(container, context)
    return context


def _seccomp(profile: SeccompProfile | None) -> cri.SecurityProfile:
    """Return a container's seccomp profile: none where the manifest names none, as in Kubernetes."""
    kinds = cri.SecurityProfile.ProfileType
    if profile is None:
        return cri.SecurityProfile(profile_type=kinds.Unconfined)
    where = str(paths.profiles_dir() / profile.localhost_profile) if profile.type == "Localhost" else ""
    return cri.SecurityProfile(profile_type=kinds.Value(profile.type), localhost_ref=where)


def _first(own: int | None, shared: int | None) -> int | None:
    return shared if own is None else own


def _set_user(context: cri.LinuxContainerSecurityContext, user: int | None, image: PulledImage) -> None:
    """Set the manifest's user, else the image's, else root: the CRI wants one named whenever a group is."""
    if user is None and image.username:
        context.run_as_username = image.username
    else:
        context.run_as_user.value = user if user is not None else image.uid or 0


def _require_non_root(container: Container, context: cri.LinuxContainerSecurityContext) -> None:
    what = f"create container {container.name}"
    if context.run_as_username:
        why = f"it has runAsNonRoot, and its image's user {context.run_as_username!r} is no number: it may be root"
        raise InvalidInput(what, why, "set securityContext.runAsUser to a number")
    if context.run_as_user.value == 0:
        why = "it has runAsNonRoot, and would run as root"
        raise InvalidInput(what, why, "set securityContext.runAsUser to a number other than 0")
