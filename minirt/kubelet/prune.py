"""What pods leave when their worker and their sandbox are gone: volumes, logs, the worker's own record."""

import shutil
from collections.abc import Iterator

from minirt import paths
from minirt.engine import store
from minirt.kubelet import volumes, workers


def prune() -> Iterator[str]:
    """Remove it; yield a line for each thing removed."""
    known = {record.config.uid for record in store.sandboxes()}
    for uid in store.ids_in(paths.data_root() / "volumes"):
        if uid not in known and not workers.find(uid):
            volumes.remove(uid)
            yield f"volumes of pod {uid}"
    workers.prune(known)
    logs = paths.logs_dir() / "pods"
    for name in store.ids_in(logs):
        uid = name.rpartition("_")[2]
        if uid not in known and not workers.find(uid):
            shutil.rmtree(logs / name, ignore_errors=True)
            yield f"logs of pod {name}"
