"""Names of the command line's containers, and of pods: each is a symbolic link that says whose it is.

    /run/minirt/names/web         ─▶ "<container id>:<pid>:<start time>"
    /run/minirt/names/pod-<hash>  ─▶ "<sandbox id>:…"     owner, name, namespace, uid and attempt, hashed

A name is taken before anything of its container exists, by the process whose pid and start time are in it. It is free
again when that process has ended and there is no container. It is taken and given back under a lock on the directory:
two who find the same name free cannot both take it.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from minirt import paths
from minirt.engine import store
from minirt.engine.records import SandboxConfig
from minirt.errors import AlreadyExists, NotFound


def reserve(name: str, record_id: str) -> None:
    """Take a name for a container that this process is about to make.

    Raises:
        AlreadyExists: another has it.
    """
    if holder := _take(paths.checked_id(name), record_id):
        raise AlreadyExists(
            f"use the name {name!r}",
            f"container {holder[:12]} has it",
            f"remove it first (minirt rm {name}), or choose another name",
        )


def reserve_sandbox(config: SandboxConfig, sandbox_id: str) -> None:
    """Take a pod's name, namespace, uid and attempt for a sandbox that this process is about to make.

    Raises:
        AlreadyExists: another has them.
    """
    if holder := _take(of_sandbox(config), sandbox_id):
        raise AlreadyExists(
            f"make a sandbox for {config.namespace}/{config.name}",
            f"attempt {config.attempt} of the pod {config.uid} is sandbox {holder}",
            "remove that one first, or count the attempt up",
        )


def of_sandbox(config: SandboxConfig) -> str:
    """Return the name under which a pod's names are taken together."""
    from _blake2 import blake2b  # hashlib's, without OpenSSL: 3 ms

    words = "\0".join((config.owner, config.name, config.namespace, config.uid, str(config.attempt)))
    return "pod-" + str(blake2b(words.encode(), digest_size=20).hexdigest())


def _take(name: str, record_id: str) -> str:
    """Take a name, and return ""; or return the id of who has it."""
    _directory().mkdir(parents=True, exist_ok=True)
    with store.flocked(_directory()):
        link = _directory() / name
        if holder := _holder(link):
            return holder
        link.unlink(missing_ok=True)
        link.symlink_to(":".join(map(str, (record_id, *store.me()))))
    return ""


def release(name: str, record_id: str) -> None:
    """Give a name back, if it is this container's."""
    link = _directory() / name
    if not link.is_symlink():
        return
    with store.flocked(_directory()), contextlib.suppress(FileNotFoundError):
        if os.readlink(link).startswith(record_id + ":"):
            link.unlink()


def prune() -> Iterator[str]:
    """Free the names that nobody has; yield them."""
    for name in store.ids_in(_directory()):
        link = _directory() / name
        with store.flocked(_directory()):
            free = os.path.lexists(link) and not _holder(link)
            if free:
                link.unlink(missing_ok=True)
        if free:
            yield f"name {name}"


def _holder(link: Path) -> str:
    """Return the id of the container that a name belongs to, "" when it belongs to none; the lock must be held."""
    try:
        record_id, pid, start_time = os.readlink(link).split(":")
        creator = int(pid), int(start_time)
        paths.checked_id(record_id)
    except (OSError, ValueError):
        return ""  # nobody has it, or what is there is no name
    return record_id if _is_on_record(record_id) or not store.is_dead(creator) else ""


def _is_on_record(record_id: str) -> bool:
    for find in (store.sandbox, store.container):
        with contextlib.suppress(NotFound):
            find(record_id)
            return True
    return False


def _directory() -> Path:
    return paths.state_root() / "names"
