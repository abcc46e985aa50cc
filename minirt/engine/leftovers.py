"""What a container leaves on disk, removed: its layer, its name, its record. Fine with what is gone already."""

from minirt import paths
from minirt.engine import names, store
from minirt.engine.records import ContainerRecord
from minirt.images.snapshots import Snapshots


def forget_container(record: ContainerRecord) -> None:
    """Remove a container's layer, name and record; its log stays if it was put elsewhere than by default."""
    Snapshots(paths.data_root()).remove(record.id)
    names.release(record.config.name, record.id)
    log = paths.logs_dir() / record.id
    if log.exists():
        store.remove_directory(log)
    store.remove_directory(paths.container_dir(record.id))
