"""Everything about a container or a pod, as plain data for JSON."""

import datetime
from typing import Any

import msgspec

from minirt import paths
from minirt.cgroups import stats
from minirt.cgroups import tree as cgroup_tree
from minirt.engine import containers, sandboxes, store
from minirt.engine.records import ContainerRecord, SandboxRecord
from minirt.errors import NotFound
from minirt.images.snapshots import Snapshots
from minirt.oci import spec as specs


def of_container(record: ContainerRecord) -> dict[str, Any]:
    """Return a container's record, state, usage, layers and OCI spec."""
    status = containers.status(record)
    cgroup = cgroup_tree.find().at(record.cgroup)
    return {
        "id": record.id,
        "pid": status.pid if status.state == "running" else 0,
        "name": record.config.name,
        "sandbox": record.sandbox_id,
        "created": moment(record.created_at),
        "image": record.config.image,
        "image_id": record.image_id,
        "state": {
            "status": status.state,
            "pid": status.pid if status.state == "running" else 0,
            "started": moment(status.started_at),
            "finished": moment(status.finished_at),
            "exit_code": status.exit_code,
            "reason": status.reason,
            "oom_killed": status.reason == "OOMKilled",
            "message": status.message,
            "warnings": list(status.warnings),
        },
        "address": _address(record.sandbox_id),
        "user_namespace": _user_namespace(record.sandbox_id),
        "log_path": record.log_path,
        "cgroup": cgroup,
        "usage": msgspec.to_builtins(stats.usage(cgroup)) if status.state == "running" else None,
        "layers": _layers(record.id),
        "bundle": str(paths.container_dir(record.id)),
        "config": msgspec.to_builtins(record.config),
        "spec": specs.as_plain(specs.load(paths.container_dir(record.id) / "config.json")),
    }


def of_pod(record: SandboxRecord) -> dict[str, Any]:
    """Return a sandbox's record with all its containers."""
    return {
        "id": record.id,
        "name": record.config.name,
        "namespace": record.config.namespace,
        "uid": record.config.uid,
        "owner": record.config.owner,
        "state": record.state if record.state != "ready" or sandboxes.is_ready(record) else "shim lost",
        "created": moment(record.created_at),
        "address": record.address,
        "hostname": record.config.hostname,
        "cgroup": cgroup_tree.find().at(record.config.cgroup),
        "config": msgspec.to_builtins(record.config),
        "containers": [of_container(container) for container in store.containers(record.id)],
    }


def moment(ns: int) -> str:
    """Return a time as RFC 3339; "" for one that has not come."""
    if not ns:
        return ""
    return datetime.datetime.fromtimestamp(ns / 1e9, datetime.UTC).isoformat().replace("+00:00", "Z")


def _address(sandbox_id: str) -> str:
    try:
        return store.sandbox(sandbox_id).address
    except NotFound:
        return ""


def _user_namespace(sandbox_id: str) -> dict[str, Any] | None:
    """Return the maps of a sandbox's user namespace, lines of [id inside, id outside, how many]; None: the host's."""
    try:
        config = store.sandbox(sandbox_id).config
    except NotFound:
        return None
    return {"uid_map": config.uid_map, "gid_map": config.gid_map} if config.uid_map else None


def _layers(container_id: str) -> dict[str, Any] | None:
    try:
        overlay = Snapshots(paths.data_root()).get(container_id)
    except NotFound:
        return None
    return {"lower": [str(path) for path in overlay.lowers], "upper": str(overlay.upper), "work": str(overlay.work)}
