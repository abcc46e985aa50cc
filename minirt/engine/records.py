"""What is known of sandboxes and containers: their configurations as asked for, and their records on disk.

    sandboxes/<id>/sandbox.json       written by the engine under the sandbox's lock
    containers/<id>/container.json    written by the engine, once
    containers/<id>/status.json       written by the container's shim (shim/status.py)

Every record carries the boot id: what another boot left in /run is stale, and swept.
"""

from typing import Literal

from msgspec import Struct, field

from minirt.cgroups.resources import Resources
from minirt.namespaces.idmap import Map
from minirt.network.directories import Directories
from minirt.oci.hooks import Hook
from minirt.oci.spec import Device, Mount, Rlimit, User
from minirt.security.conditional import Choice

CDI_ANNOTATIONS = "cdi.k8s.io/"
"""How the keys of annotations begin that name CDI devices, between commas."""
CRI = "cri"
"""The owner of what is made through the socket of ``minirt serve``."""
Mode = Literal["private", "pod", "host"]
Network = Literal["none", "host", "bridge", "cni"]
Propagation = Literal["private", "slave", "shared"]
Protocol = Literal["tcp", "udp", "sctp"]


class Port(Struct, frozen=True, omit_defaults=True):
    """A port of the host that leads to one of the pod."""

    container_port: int
    host_port: int
    protocol: Protocol = "tcp"
    host_ip: str = ""


class SandboxConfig(Struct, frozen=True, omit_defaults=True):
    """A sandbox as asked for. ``owner`` is who lists it: ``cli``, ``cri``, or a kubelet's name.

    ``own_limits`` false: its cgroup lies in one of the caller's, who limits that.
    ``dns_servers`` empty: the host's resolv.conf. ``cni``: where the network "cni" is found.
    ``single``: it ends with its one container (``minirt run``).
    ``handler``: the runtime that was asked for by name; its containers are run by that one (handlers.py).
    ``uid_map`` and ``gid_map`` are those of its user namespace, empty for the host's; with ``auto_ids`` a free range is
    found when it is made.
    """

    name: str
    uid: str
    namespace: str = "default"
    attempt: int = 0
    owner: str = "cli"
    hostname: str = ""
    network: Network = "bridge"
    pid: Mode = "private"
    ipc: Mode = "pod"
    cgroup: str = ""
    resources: Resources = Resources()
    own_limits: bool = True
    sysctls: dict[str, str] = field(default_factory=dict)
    dns_servers: tuple[str, ...] = ()
    dns_searches: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()
    ports: tuple[Port, ...] = ()
    cni: Directories | None = None
    shm_bytes: int = 64 << 20
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    log_directory: str = ""
    privileged: bool = False
    single: bool = False
    trace: bool = False
    uid_map: Map = ()
    gid_map: Map = ()
    auto_ids: bool = False
    handler: str = ""


class Volume(Struct, frozen=True, omit_defaults=True):
    """A file or directory of the host, shown in the container. ``recursive``: read-only with all mounts below it.

    ``uid_map`` and ``gid_map``: which ids those on disk are shown as; empty for the user namespace's, if there is one.
    """

    source: str
    destination: str
    readonly: bool = False
    propagation: Propagation = "private"
    recursive: bool = False
    uid_map: Map = ()
    gid_map: Map = ()


class ImageVolume(Struct, frozen=True, omit_defaults=True):
    """An image, or what it has at ``sub_path``, shown read-only. ``image`` is its name or id as asked for.

    ``user_image`` is what a kubelet was asked for.
    """

    image: str
    destination: str
    sub_path: str = ""
    user_image: str = ""


class Tmpfs(Struct, frozen=True):
    """A tmpfs of the container's own, with mount options."""

    destination: str
    options: tuple[str, ...]


class Security(Struct, frozen=True, omit_defaults=True):
    """What the container may do. ``user`` is ``uid``, ``name``, each with ``:group``; "" is the image's.

    ``apparmor`` is a profile's name; "default": minirt's own, where there is AppArmor; "": none.
    """

    user: str = ""
    groups: tuple[int, ...] = ()
    image_groups: bool = True
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()
    privileged: bool = False
    readonly_rootfs: bool = False
    no_new_privileges: bool = False
    masked: tuple[str, ...] | None = None
    readonly: tuple[str, ...] | None = None
    seccomp: Choice = "default"
    apparmor: str = "default"


class ContainerConfig(Struct, frozen=True, omit_defaults=True):
    """A container as asked for. ``command`` replaces the image's entrypoint, ``args`` its arguments.

    ``init`` is a program of the host's that is to be PID 1 and run the command ("": the command is PID 1).
    ``mounts`` and ``hooks`` (at createContainer) are what its devices need, as the OCI spec has them.
    ``pid`` None: as its sandbox says; ``pid_of``: it joins the PID namespace of the container of that id.
    """

    name: str
    image: str
    attempt: int = 0
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = ""
    volumes: tuple[Volume, ...] = ()
    images: tuple[ImageVolume, ...] = ()
    mounts: tuple[Mount, ...] = ()
    hooks: tuple[Hook, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    init: str = ""
    devices: tuple[Device, ...] = ()
    security: Security = Security()
    resources: Resources = Resources()
    rlimits: tuple[Rlimit, ...] = ()
    oom_score_adj: int | None = None
    pid: Mode | None = None
    pid_of: str = ""
    terminal: bool = False
    stdin: bool = False
    stdin_once: bool = False
    stop_signal: str = ""
    log_path: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    remove_after_exit: bool = False


class SandboxRecord(Struct, frozen=True, omit_defaults=True):
    """A sandbox on disk. ``creator`` is who makes it (pid, start time); "creating" with a dead creator is half made.

    ``shim`` is its shim's pid and start time, once it is ready.
    """

    id: str
    config: SandboxConfig
    boot_id: str
    state: Literal["creating", "ready", "stopped"]
    created_at: int
    creator: tuple[int, int] = (0, 0)
    shim: tuple[int, int] = (0, 0)
    address: str = ""
    further_addresses: tuple[str, ...] = ()


class ContainerRecord(Struct, frozen=True, omit_defaults=True):
    """A container on disk. Until its config.json is there it is half made, by ``creator`` (pid, start time)."""

    id: str
    sandbox_id: str
    config: ContainerConfig
    boot_id: str
    image_id: str
    created_at: int
    cgroup: str
    log_path: str
    stop_signal: int = 15
    user: User = User()
    owner: str = "cli"
    creator: tuple[int, int] = (0, 0)
