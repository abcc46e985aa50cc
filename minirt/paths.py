"""Where things live on disk, and which names may become part of a path.

    /var/lib/minirt/            survives a reboot
        blobs/  snapshots/  images.json  images.lock  tmp/  trash/     the image store
        logs/                               container logs, in the CRI's line format
        volumes/<pod uid>/<volume>          emptyDir volumes on disk; .ids: those of the pod's user namespace
        seccomp/                            the node's own seccomp profiles, put there by its owner
    /etc/minirt/                put there by the node's owner
        certs.d/<host>/hosts.toml           how a registry is reached
        secrets/<namespace>/<name>.yaml     pull secrets
    /run/minirt/                does not: every state file carries the boot id, and another boot's is stale
        sandboxes/<id>/     sandbox.json  shim.sock  ns/{user,net,ipc,uts,pid}  shm/  hosts  resolv.conf  journal.ndjson
        containers/<id>/    container.json  status.json  config.json  rootfs/
        network/            address leases, the lock of the bridge
        seccomp/<digest>.bpf                compiled seccomp profiles: a cache

Both roots can be moved with ``MINIRT_ROOT`` and ``MINIRT_STATE``: the tests give every test its own.
"""

import functools
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

STATE_ROOT = "/run/minirt"
ID_GRAMMAR = r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}"
"""The grammar of names that become files: the same as docker's container names, at most 128 characters."""


def data_root() -> "Path":
    """Return the directory of what survives a reboot."""
    return _path(os.environ.get("MINIRT_ROOT", "/var/lib/minirt"))


def state_root() -> "Path":
    """Return the directory of what a reboot ends."""
    return _path(_state_root())


def _state_root() -> str:
    return os.environ.get("MINIRT_STATE", STATE_ROOT)


def _path(text: str) -> "Path":
    from pathlib import Path  # which is 3 ms, for URLs and their addresses, and minirt-oci uses none

    return Path(text)


def sandbox_dir(sandbox_id: str) -> "Path":
    """Return the state directory of one sandbox."""
    return _below(_state_root(), "sandboxes", sandbox_id)


def sandbox_path(sandbox_id: str) -> str:
    """Return the same as text: each shim asks for its own, and has a use for little of what makes a Path."""
    return f"{_state_root()}/sandboxes/{checked_id(sandbox_id)}"


def container_dir(container_id: str) -> "Path":
    """Return the state directory of one container; it is also its OCI bundle."""
    return _below(_state_root(), "containers", container_id)


def container_path(container_id: str) -> str:
    """Return the same as text."""
    return f"{_state_root()}/containers/{checked_id(container_id)}"


@functools.lru_cache(4096)
def _below(root: str, kind: str, key: str) -> "Path":
    """Return a record's directory; lists of hundreds ask for the same ones again and again."""
    return _path(root) / kind / checked_id(key)


def filters_dir() -> str:
    """Return the directory of compiled seccomp profiles."""
    return f"{_state_root()}/seccomp"


def profiles_dir() -> "Path":
    """Return the directory of the node's own seccomp profiles, which pods name (type Localhost)."""
    return data_root() / "seccomp"


def logs_dir() -> "Path":
    """Return the directory that holds container logs."""
    return data_root() / "logs"


def registry_settings() -> "list[Path]":
    """Return the directories of registries' settings (images/hosts.py), in the order in which they are looked into.

    ``MINIRT_REGISTRIES`` names others in their place, with ":" between them.
    """
    usual = "/etc/minirt/certs.d:/etc/containerd/certs.d:/etc/docker/certs.d"
    return [_path(one) for one in os.environ.get("MINIRT_REGISTRIES", usual).split(":") if one]


def secrets_dir() -> "Path":
    """Return the directory of pull secrets (kubelet/secrets.py), put there by the node's owner."""
    return _path(os.environ.get("MINIRT_SECRETS", "/etc/minirt/secrets"))


def cdi_dirs() -> "list[Path]":
    """Return where CDI's files are, what counts more last; MINIRT_CDI names others, between colons."""
    return [_path(text) for text in os.environ.get("MINIRT_CDI", "/etc/cdi:/var/run/cdi").split(":") if text]


def volumes_dir(pod_uid: str) -> "Path":
    """Return the directory of one pod's emptyDir volumes."""
    return data_root() / "volumes" / checked_id(pod_uid)


def is_id(name: str) -> bool:
    """Say whether a name may become part of a path."""
    return bool(re.fullmatch(ID_GRAMMAR, name))


def checked_id(name: str) -> str:
    """Return ``name`` if it may become part of a path.

    Raises:
        ValueError: it is empty, too long, or has a character outside ``[a-zA-Z0-9_.-]``. Names that users type are
            checked before, with a better message.
    """
    if not is_id(name):
        raise ValueError(f"{name!r} is not an id: 1 to 128 letters, digits, '_', '.', '-', a letter or digit first")
    return name


@functools.cache
def boot_id() -> str:
    """Return the kernel's id of this boot. Source: proc_sys_kernel(5), random/boot_id."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
