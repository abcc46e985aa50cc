"""What a pod manifest may hold: Kubernetes' v1 Pod, in types, as far as this version does what the fields ask for.

Names, shapes and defaults are Kubernetes' own. Fields that Kubernetes has and that are not here stand in
``minirt.kubelet.refusals``, so that a manifest that uses one is refused by its name instead of half obeyed.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
"""

from typing import Literal

from msgspec import Struct, field

from minirt.kubelet.quantity import Quantity

RestartPolicy = Literal["Always", "OnFailure", "Never"]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
HostPathType = Literal[
    "", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"
]
Propagation = Literal["None", "HostToContainer", "Bidirectional"]


class ObjectFieldSelector(Struct, rename="camel", omit_defaults=True, frozen=True):
    """A field of the pod: ``metadata.name``, ``metadata.labels['app']``, ``status.podIP``."""

    field_path: str
    api_version: Literal["v1"] = "v1"


class ResourceFieldSelector(Struct, rename="camel", omit_defaults=True, frozen=True):
    """A container's request or limit (``limits.memory``), counted in units of ``divisor``."""

    resource: Literal["limits.cpu", "limits.memory", "requests.cpu", "requests.memory"]
    container_name: str = ""
    divisor: Quantity | None = None


class EnvVarSource(Struct, rename="camel", omit_defaults=True, frozen=True):
    """Where a variable's value comes from: one of the two."""

    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None


class EnvVar(Struct, rename="camel", omit_defaults=True, frozen=True):
    """One environment variable; ``$(OTHER)`` in its value is expanded."""

    name: str
    value: str = ""
    value_from: EnvVarSource | None = None


class ContainerPort(Struct, rename="camel", omit_defaults=True, frozen=True):
    """A port the container listens on; ``host_port`` 0 means that it is not published."""

    container_port: int
    host_port: int = 0
    host_ip: str = field(default="", name="hostIP")
    name: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"


class ResourceList(Struct, omit_defaults=True, frozen=True):
    """Amounts of the two resources there are."""

    cpu: Quantity | None = None
    memory: Quantity | None = None


class ResourceRequirements(Struct, omit_defaults=True, frozen=True):
    """What a container is sure to get, and what it never gets more than."""

    requests: ResourceList = ResourceList()
    limits: ResourceList = ResourceList()


class Capabilities(Struct, omit_defaults=True, frozen=True):
    """Capabilities beyond the default ones, and those to do without. Names have no CAP_ prefix; ALL is all."""

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class SeccompProfile(Struct, rename="camel", omit_defaults=True, frozen=True):
    """A filter of system calls: minirt's own, none, or a file below the node's directory of profiles."""

    type: Literal["RuntimeDefault", "Unconfined", "Localhost"]
    localhost_profile: str = ""


class AppArmorProfile(Struct, rename="camel", omit_defaults=True, frozen=True):
    """An AppArmor profile: the runtime's own, none, or one that the node has loaded."""

    type: Literal["RuntimeDefault", "Unconfined", "Localhost"]
    localhost_profile: str = ""


class SecurityContext(Struct, rename="camel", omit_defaults=True, frozen=True):
    """A container's privileges; what is None is taken from the pod's."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    capabilities: Capabilities = Capabilities()
    privileged: bool = False
    read_only_root_filesystem: bool = False
    allow_privilege_escalation: bool | None = None
    seccomp_profile: SeccompProfile | None = None
    app_armor_profile: AppArmorProfile | None = None


class VolumeMount(Struct, rename="camel", omit_defaults=True, frozen=True):
    """Where a volume of the pod appears in a container; ``sub_path`` is what of an image's is shown."""

    name: str
    mount_path: str
    sub_path: str = ""
    read_only: bool = False
    mount_propagation: Propagation = "None"


class Container(Struct, rename="camel", omit_defaults=True, frozen=True):
    """One container. An empty ``image_pull_policy`` is Always for :latest, else IfNotPresent."""

    name: str
    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[EnvVar, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    resources: ResourceRequirements = ResourceRequirements()
    volume_mounts: tuple[VolumeMount, ...] = ()
    image_pull_policy: PullPolicy | None = None
    security_context: SecurityContext = SecurityContext()
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


class EmptyDir(Struct, rename="camel", omit_defaults=True, frozen=True):
    """A directory that lives as long as the pod: on disk, or in memory (then ``size_limit`` is the tmpfs's size)."""

    medium: Literal["", "Memory"] = ""
    size_limit: Quantity | None = None


class HostPath(Struct, omit_defaults=True, frozen=True):
    """A file or directory of the host; ``type`` says what must be there, or is made."""

    path: str
    type: HostPathType = ""


class ImageSource(Struct, rename="camel", omit_defaults=True, frozen=True):
    """The files of an image, read-only. No ``pull_policy`` is Always for :latest, else IfNotPresent."""

    reference: str
    pull_policy: PullPolicy | None = None


class Volume(Struct, rename="camel", omit_defaults=True, frozen=True):
    """A volume: one of the three."""

    name: str
    empty_dir: EmptyDir | None = None
    host_path: HostPath | None = None
    image: ImageSource | None = None


class LocalReference(Struct, omit_defaults=True, frozen=True):
    """Something of the pod's namespace, by its name."""

    name: str


class HostAlias(Struct, omit_defaults=True, frozen=True):
    """A line of the pod's /etc/hosts."""

    ip: str
    hostnames: tuple[str, ...] = ()


class DnsOption(Struct, omit_defaults=True, frozen=True):
    """An option of resolv.conf(5): ``ndots`` with value ``2``, ``edns0`` without one."""

    name: str
    value: str = ""


class DnsConfig(Struct, omit_defaults=True, frozen=True):
    """What is added to the resolv.conf that the policy gives, or all of it with policy None."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[DnsOption, ...] = ()


class Sysctl(Struct, omit_defaults=True, frozen=True):
    """A kernel parameter of the pod's namespaces."""

    name: str
    value: str


class PodSecurityContext(Struct, rename="camel", omit_defaults=True, frozen=True):
    """Privileges for all containers; ``fs_group`` owns the pod's emptyDirs and is everybody's supplemental group."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    supplemental_groups: tuple[int, ...] = ()
    fs_group: int | None = None
    sysctls: tuple[Sysctl, ...] = ()
    seccomp_profile: SeccompProfile | None = None
    app_armor_profile: AppArmorProfile | None = None


class PodSpec(Struct, rename="camel", omit_defaults=True, frozen=True):
    """What to run."""

    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...] = ()
    restart_policy: RestartPolicy = "Always"
    termination_grace_period_seconds: int = 30
    volumes: tuple[Volume, ...] = ()
    host_network: bool = False
    host_pid: bool = field(default=False, name="hostPID")
    host_ipc: bool = field(default=False, name="hostIPC")
    host_users: bool = True
    share_process_namespace: bool = False
    hostname: str = ""
    host_aliases: tuple[HostAlias, ...] = ()
    dns_policy: Literal["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"] = "ClusterFirst"
    dns_config: DnsConfig = DnsConfig()
    security_context: PodSecurityContext = PodSecurityContext()
    image_pull_secrets: tuple[LocalReference, ...] = ()
    runtime_class_name: str = ""


class ObjectMeta(Struct, omit_defaults=True, frozen=True):
    """Who the pod is. ``uid`` is unlike any other pod's, of this name or another; loading fills it in."""

    name: str
    namespace: str = "default"
    uid: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


class Pod(Struct, rename="camel", omit_defaults=True, frozen=True):
    """A pod as its author wrote it, with Kubernetes' defaults."""

    api_version: Literal["v1"]
    kind: Literal["Pod"]
    metadata: ObjectMeta
    spec: PodSpec

    @property
    def uid(self) -> str:
        """Return the pod's uid."""
        return self.metadata.uid

    @property
    def all_containers(self) -> tuple[Container, ...]:
        """Return the init containers and the containers, in the order in which they start."""
        return self.spec.init_containers + self.spec.containers

    def image_volumes(self, container: Container) -> dict[str, ImageSource]:
        """Return the images that a container mounts, by their volumes' names."""
        mounted = {mount.name for mount in container.volume_mounts}
        return {one.name: one.image for one in self.spec.volumes if one.image and one.name in mounted}

    def path_of(self, container: Container) -> str:
        """Return where a container stands in the manifest: ``spec.containers[0]``."""
        if container in self.spec.init_containers:
            return f"spec.initContainers[{self.spec.init_containers.index(container)}]"
        return f"spec.containers[{self.spec.containers.index(container)}]"
