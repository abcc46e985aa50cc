"""What a container has made of its image: told (diff), written out (export), or made an image of its own (commit)."""

import contextlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from minirt import paths
from minirt.cgroups import lifecycle
from minirt.cgroups import tree as cgroup_tree
from minirt.engine import containers, store
from minirt.engine.records import ContainerRecord
from minirt.errors import NotFound, raised_as_step
from minirt.images import disk
from minirt.images.changes import Change, changes, is_mount_point
from minirt.images.commit import Commit
from minirt.images.image import Image, ImageConfig
from minirt.images.snapshots import Overlay, Snapshots
from minirt.images.store import ImageStore
from minirt.oci import spec


def diff(record: ContainerRecord) -> list[Change]:
    """Return what a container has changed. Raises NotFound: its layer is gone. StepFailed: it cannot be read."""
    overlay, without = _layer(record)
    with raised_as_step(f"compare {record.config.name} with its image"):
        return changes(overlay, without)


def export(record: ContainerRecord, target: IO[bytes]) -> None:
    """Write a container's file system, without what is mounted in it, to ``target`` as a tar archive.

    Raises:
        NotFound: its layer is gone. StepFailed: it cannot be read, or ``target`` not be written.
    """
    from minirt.images.layer import pack
    from minirt.images.view import view

    overlay, without = _layer(record)
    with raised_as_step(f"export {record.config.name}"), view((overlay.upper, *overlay.lowers)) as merged:
        pack(merged, target, overlay=False, without=without)


def commit(
    record: ContainerRecord, name: str, *, changes: tuple[str, ...], author: str, message: str, pause: bool
) -> Image:
    """Make an image of a container as it is now; with ``pause`` nothing runs in it meanwhile. "" is no name.

    Raises:
        NotFound: its image is not in the store any more, or its layer is gone.
        InvalidInput: ``name`` or a change is none. ImageError: disk full.
    """
    images = ImageStore()
    image = images.get(record.image_id)
    overlay, without = _layer(record)
    config = record.config
    created_by = " ".join((*config.command, *config.args)) or " ".join((*image.config.entrypoint, *image.config.cmd))
    what = Commit(_run_config(record, image.config), created_by, changes, author, message)
    return images.commit(image.id, overlay, without, what, name, _paused(record, overlay) if pause else None)


def _layer(record: ContainerRecord) -> tuple[Overlay, Callable[[str], bool]]:
    """Return a container's overlay, and what says of a path that it is there only to be mounted on."""
    overlay = Snapshots(paths.data_root()).get(record.id)
    mounts = spec.load(paths.container_dir(record.id) / "config.json").mounts
    return overlay, is_mount_point(overlay, {mount.destination.strip("/") for mount in mounts})


def _run_config(record: ContainerRecord, image: ImageConfig) -> dict[str, Any]:
    """Return how the container was run, where that differs from its image, in docker's words."""
    config = record.config
    found: dict[str, Any] = {}
    if config.command:
        found |= {"Entrypoint": list(config.command), "Cmd": list(config.args) or None}
    elif config.args:
        found["Cmd"] = list(config.args)
    if config.env:
        own = dict(config.env)
        kept = [one for one in image.env if one.partition("=")[0] not in own]
        found["Env"] = kept + [f"{key}={value}" for key, value in own.items()]
    said = {"WorkingDir": config.cwd, "User": config.security.user, "StopSignal": config.stop_signal}
    found |= {key: value for key, value in said.items() if value}
    if config.labels:
        found["Labels"] = image.labels | config.labels
    return found


@contextlib.contextmanager
def _paused(record: ContainerRecord, overlay: Overlay) -> Iterator[None]:
    """Freeze a container, if it runs, while the block runs; its layer's directory is locked so long."""
    if containers.status(record).state != "running":
        yield
        return
    cgroup = cgroup_tree.find().at(record.cgroup)
    with disk.flocked(overlay.upper.parent):
        lifecycle.freeze(cgroup)
        try:
            yield
        finally:
            lifecycle.thaw(cgroup)


def thaw_forgotten() -> Iterator[str]:
    """Thaw containers whose commit was killed; yield a line for each."""
    for record in store.containers():
        cgroup = cgroup_tree.find().at(record.cgroup)
        with contextlib.suppress(NotFound, FileNotFoundError):
            home = Snapshots(paths.data_root()).get(record.id).upper.parent
            if lifecycle.is_frozen(cgroup) and not disk.is_flocked(home):
                lifecycle.thaw(cgroup)
                yield f"the freeze of container {record.id}: its commit had died"
