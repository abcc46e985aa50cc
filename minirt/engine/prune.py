"""What crashes leave, found and removed; and what must follow the end of a container that nobody waits for.

Nothing that lives is touched: a sandbox that is being made by a living process, a container that runs, one that has
ended and may still be asked for its logs. Who removes something takes away what belongs to it first and its record
last: so a thing is left behind if it has no record and, looked at once more, is still there.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from minirt import paths
from minirt.cgroups import lifecycle
from minirt.cgroups import tree as cgroup_tree
from minirt.engine import containers, names, sandboxes, store
from minirt.engine.records import SandboxRecord
from minirt.errors import NotFound
from minirt.pod import sandbox


def prune() -> Iterator[str]:
    """Remove what crashes left; yield a line for each thing removed."""
    yield from _broken_containers()
    yield from _sandboxes()
    yield from _orphans()
    yield from _frozen()
    yield from _network()
    yield from _cgroups()
    yield from names.prune()
    yield from _snapshots()
    yield from _logs()
    yield from _half_removed()


def clean_up(sandbox_id: str) -> None:
    """Do what must follow the end of the one container of a sandbox: give back what it borrowed; --rm removes it."""
    with contextlib.suppress(NotFound):
        record = store.container(sandbox_id)
        if record.config.remove_after_exit:
            sandboxes.remove(sandbox_id)
    sandboxes.stop(sandbox_id)


def _sandboxes() -> Iterator[str]:
    for sandbox_id in store.ids_in(paths.state_root() / "sandboxes"):
        try:
            record = store.sandbox(sandbox_id)
        except NotFound:
            if paths.sandbox_dir(sandbox_id).exists():
                sandboxes.remove(sandbox_id)
                yield f"sandbox {sandbox_id}: its record is of another boot, or cannot be read"
            continue
        if sandboxes.is_abandoned(record):
            sandboxes.remove(sandbox_id)
            yield f"half-made sandbox {sandbox_id}"
        elif _is_dead(record) and _stays_dead(sandbox_id):
            clean_up(sandbox_id)
            yield f"what sandbox {sandbox_id} borrowed: its shim had died, and nothing runs in it"


def _is_dead(record: SandboxRecord) -> bool:
    """Say whether a sandbox has neither a shim nor a running container."""
    if record.state != "ready" or sandboxes.is_ready(record):
        return False
    return all(containers.status(one).state in {"created", "exited"} for one in store.containers(record.id))


def _stays_dead(sandbox_id: str) -> bool:
    """Say whether it is dead although nobody is taking it down."""
    with contextlib.suppress(NotFound), store.locked(sandbox_id):
        return _is_dead(store.sandbox(sandbox_id))
    return False


def _broken_containers() -> Iterator[str]:
    """Remove containers without a record, and those whose maker died before they were whole.

    Should one without a record run, ``_cgroups`` or the end of its sandbox ends it.
    """
    for container_id in store.ids_in(paths.state_root() / "containers"):
        try:
            record = store.container(container_id)
        except NotFound:
            if paths.container_dir(container_id).exists():
                store.remove_directory(paths.container_dir(container_id))
                yield f"container {container_id}: its record is of another boot, or cannot be read"
            continue
        if not store.is_made(record) and store.is_dead(record.creator):
            containers.remove(record, force=True)
            yield f"half-made container {container_id}"


def _orphans() -> Iterator[str]:
    """Remove containers whose sandbox is gone."""
    for record in store.containers(half_made=True):
        if not paths.sandbox_dir(record.sandbox_id).exists() and paths.container_dir(record.id).exists():
            containers.remove(record, force=True)
            yield f"container {record.id}: its sandbox is gone"


def _frozen() -> Iterator[str]:
    from minirt.engine import committing

    yield from committing.thaw_forgotten()


def _live_sandboxes() -> set[str]:
    return {record.id for record in store.sandboxes() if record.state != "stopped"}


def _network() -> Iterator[str]:
    if (paths.state_root() / "network").exists():
        from minirt.network.bridge import prune as prune_network

        yield from prune_network(_live_sandboxes)


def _cgroups() -> Iterator[str]:
    """Remove cgroups of ours that belong to no sandbox, and at last our root."""
    tree = cgroup_tree.find()
    try:
        found = lifecycle.children(tree.root)
    except FileNotFoundError:
        return
    inner = [path for pod in found for path in _of_containers(pod)]
    pods = {tree.at(record.config.cgroup) for record in store.sandboxes() if record.state != "stopped"}
    known = pods | {tree.at(record.cgroup) for record in store.containers(half_made=True)}
    for path in (*inner, *found):
        if path not in known and os.path.isdir(path):
            lifecycle.kill(path)
            lifecycle.remove(path)
            yield f"cgroup {path}"
    if not pods:
        lifecycle.remove(tree.root)


def _of_containers(pod: str) -> list[str]:
    """Return the cgroups of a pod's containers: all in it but for those of its helpers."""
    with contextlib.suppress(FileNotFoundError):
        return [path for path in lifecycle.children(pod) if os.path.basename(path) not in sandbox.LEAVES]
    return []


def _half_removed() -> Iterator[str]:
    """Remove directories that were on their way in or out when their process died."""
    for top in (paths.state_root() / "sandboxes", paths.state_root() / "containers", paths.logs_dir()):
        for path in top.glob(".*") if top.exists() else ():
            if _is_left(path):
                sandbox.unmake(str(path))
                shutil.rmtree(path, ignore_errors=True)
                yield f"half-removed {path}"


def _is_left(path: Path) -> bool:
    """Say whether who made or removed ``.<id>.<pid>`` has ended."""
    pid = path.name.rpartition(".")[2]
    return not (pid.isdigit() and Path(f"/proc/{pid}").exists())


def _snapshots() -> Iterator[str]:
    """Remove writable layers without a container; a container's record is there before its layer."""
    from minirt.images import garbage, mounting
    from minirt.images.snapshots import Snapshots

    snapshots = Snapshots(paths.data_root())
    layered = snapshots.keys()
    for key in layered:
        owned = paths.container_dir(key).exists() or mounting.is_mounted(paths.data_root(), key)
        if not owned and snapshots.has(key):
            snapshots.remove(key)
            yield f"writable layer of {key}"
    garbage.collect(paths.data_root())


def _logs() -> Iterator[str]:
    """Remove logs without a container; those of pods are the kubelet's."""
    for key in store.ids_in(paths.logs_dir()):
        if key != "pods" and not paths.container_dir(key).exists() and (paths.logs_dir() / key).exists():
            store.remove_directory(paths.logs_dir() / key)
            yield f"log of {key}"
