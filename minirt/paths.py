"""Where things live on disk, and which names may become part of a path.

    /var/lib/minirt/            survives a reboot
        blobs/  snapshots/  images.json  images.lock  tmp/  trash/     the image store
        logs/                               container logs, in the CRI's line format
        volumes/<pod uid>/<volume>          emptyDir volumes on disk; .ids: those of the pod's user namespace
        seccomp/                            the node's own seccomp profiles, put there by its owner
    /run/minirt/                does not: every state file carries the boot id, and another boot's is stale
        sandboxes/<id>/     sandbox.json  shim.sock  ns/{user,net,ipc,uts,pid}  shm/  hosts  resolv.conf  journal.ndjson
        containers/<id>/    container.json  status.json  config.json  rootfs/
        network/            address leases, the lock of the bridge
        seccomp/<digest>.bpf                compiled seccomp profiles: a cache

Both roots can be moved with ``MINIRT_ROOT`` and ``MINIRT_STATE``: the tests give every test its own.
"""

import os
import re
from pathlib import Path

ID_GRAMMAR = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
"""The grammar of names that become files: the same as docker's container names, at most 128 characters."""


def data_root() -> Path:
    """Return the directory of what survives a reboot."""
    return Path(os.environ.get("MINIRT_ROOT", "/var/lib/minirt"))


def state_root() -> Path:
    """Return the directory of what a reboot ends."""
    return Path(os.environ.get("MINIRT_STATE", "/run/minirt"))


def sandbox_dir(sandbox_id: str) -> Path:
    """Return the state directory of one sandbox."""
    return state_root() / "sandboxes" / checked_id(sandbox_id)


def container_dir(container_id: str) -> Path:
    """Return the state directory of one container; it is also its OCI bundle."""
    return state_root() / "containers" / checked_id(container_id)


def filters_dir() -> Path:
    """Return the directory of compiled seccomp profiles."""
    return state_root() / "seccomp"


def profiles_dir() -> Path:
    """Return the directory of the node's own seccomp profiles, which pods name (type Localhost)."""
    return data_root() / "seccomp"


def logs_dir() -> Path:
    """Return the directory that holds container logs."""
    return data_root() / "logs"


def volumes_dir(pod_uid: str) -> Path:
    """Return the directory of one pod's emptyDir volumes."""
    return data_root() / "volumes" / checked_id(pod_uid)


def checked_id(name: str) -> str:
    """Return ``name`` if it may become part of a path.

    Raises:
        ValueError: it is empty, too long, or has a character outside ``[a-zA-Z0-9_.-]``. Names that users type are
            checked before, with a better message.
    """
    if not ID_GRAMMAR.fullmatch(name):
        raise ValueError(f"{name!r} is not an id: 1 to 128 letters, digits, '_', '.', '-', a letter or digit first")
    return name


def boot_id() -> str:
    """Return the kernel's id of this boot. Source: proc_sys_kernel(5), random/boot_id."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
