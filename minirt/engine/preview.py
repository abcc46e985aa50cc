"""What running a container would do, without doing it: the same compilers, and their plans' own words."""

from collections.abc import Iterator
from ipaddress import IPv4Interface

from msgspec import structs

from minirt import paths
from minirt.cgroups import tree as cgroup_tree
from minirt.engine import containers, idranges, imagevolumes, sandboxes
from minirt.engine.compile import shared_kinds
from minirt.engine.records import ContainerConfig, SandboxConfig, SandboxRecord
from minirt.images.snapshots import Overlay, Snapshots
from minirt.images.store import ImageStore
from minirt.namespaces.rootfs import MountOverlay
from minirt.oci.compile import compile_spec
from minirt.pod import sandbox as pod_sandbox
from minirt.security import seccomp
from minirt.security.capabilities import last_cap


def lines(sandbox_config: SandboxConfig, config: ContainerConfig) -> Iterator[tuple[str, str]]:
    """Yield (stage, description) of every operation, in order.

    Raises:
        NotFound: the image is not in the store.
        InvalidInput: what starting would refuse, too.
    """
    image = ImageStore().get(config.image)
    container_id = sandboxes.new_id()
    record = _record(with_ids(sandbox_config), container_id)
    directory = paths.sandbox_dir(container_id)
    yield from _sandbox_plan(record, str(directory)).lines()
    yield from _network(record)
    snapshots = Snapshots(paths.data_root())
    overlay = snapshots.preview(container_id, image)
    volumes = {name: snapshots.volume(container_id, one) for name, one in imagevolumes.find(config).items()}
    spec = containers.spec_of(config, container_id, record, image, overlay, volumes)
    bundle = str(paths.container_dir(container_id))
    filter = seccomp.preview_of(spec.linux.seccomp)
    root = _mount(overlay, bundle, mapped=bool(record.config.uid_map))
    plan = compile_spec(spec, bundle, root, cgroup_tree.find(), last_cap(), filter)
    yield from plan.lines()


def with_ids(config: SandboxConfig) -> SandboxConfig:
    """Return a configuration with ids that are free now, where it asks for some."""
    ids = idranges.free() if config.auto_ids else None
    return structs.replace(config, uid_map=ids.uid_map, gid_map=ids.gid_map) if ids else config


def _record(config: SandboxConfig, sandbox_id: str) -> SandboxRecord:
    return SandboxRecord(sandbox_id, sandboxes.completed(config, sandbox_id), paths.boot_id(), "ready", 0)


def _sandbox_plan(record: SandboxRecord, directory: str) -> pod_sandbox.Plan:
    config = record.config
    return pod_sandbox.Plan(
        directory=directory,
        kinds=shared_kinds(config.network, record),
        hostname=config.hostname,
        cgroup=config.cgroup,
        share_pid=config.pid == "pod",
        shm_bytes=0 if config.ipc == "host" else config.shm_bytes,
        last_cap=last_cap(),
        sysctls=sandboxes.sysctls(config),
        resources=config.resources,
        uid_map=config.uid_map,
        gid_map=config.gid_map,
    )


def _network(record: SandboxRecord) -> Iterator[tuple[str, str]]:
    if record.config.network == "bridge":
        from minirt.network.plan import plan_attach
        from minirt.network.settings import BridgeSettings

        settings = BridgeSettings()
        first = IPv4Interface((int(settings.gateway.ip) + 1, settings.subnet.prefixlen))
        for operation in plan_attach(record.id, first, settings, sandboxes.port_mappings(record.config)):
            yield "engine", operation.describe()


def _mount(overlay: Overlay, bundle: str, *, mapped: bool) -> MountOverlay:
    lowers = tuple(map(str, overlay.lowers))
    return MountOverlay(lowers, str(overlay.upper), str(overlay.work), f"{bundle}/rootfs", mapped)
