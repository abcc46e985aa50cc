"""Runtime handlers: who runs a pod's containers, by the name that a RuntimeClass gives.

The empty name and ``minirt`` are this runtime itself. ``runc`` and ``crun`` are those programs, where they are
installed: the sandbox, images, networks, logs and streams are minirt's all the same.
"""

import functools

import msgspec
from msgspec import Struct

from minirt import decoding
from minirt.engine.records import ContainerConfig, SandboxConfig
from minirt.errors import NotFound, Unsupported

OWN = ("", "minirt")
FOREIGN = ("runc", "crun")
FEATURES_S = 10.0
"""How long a runtime may take to say what it can do."""


class Features(Struct, frozen=True):
    """What a handler can do, of what a kubelet asks."""

    recursive_read_only_mounts: bool = False
    user_namespaces: bool = False


class _Told(Struct, rename="camel"):
    """What ``runc features`` prints, as far as it is of use. Source: the OCI runtime spec, features.md."""

    mount_options: tuple[str, ...] = ()


def installed() -> tuple[str, ...]:
    """Return the other runtimes that this machine has."""
    import shutil

    return tuple(name for name in FOREIGN if shutil.which(name))


def program(handler: str) -> str:
    """Return the program of a handler, "" for our own. Raises NotFound: it is unknown, or not installed."""
    if handler in OWN:
        return ""
    import shutil

    found = shutil.which(handler) if handler in FOREIGN else None
    if not found:
        why = "it is not installed" if handler in FOREIGN else f"there are {', '.join(('minirt', *installed()))}"
        raise NotFound(f"use the runtime handler {handler!r}", why, "install it, or take another")
    return found


def features(handler: str, *, maps_ids: bool = True) -> Features:
    """Return what a handler can do; ``maps_ids``: the machine has ids for user namespaces.

    With others a user namespace is out of reach: they look for the root by a path that the pod's ids cannot walk.
    """
    if handler in OWN:
        return Features(recursive_read_only_mounts=True, user_namespaces=maps_ids)
    return Features(recursive_read_only_mounts="rro" in _mount_options(program(handler)))


@functools.cache
def _mount_options(path: str) -> tuple[str, ...]:
    """Return the mount options that the runtime at ``path`` knows; none where it has no such command."""
    import subprocess

    try:
        done = subprocess.run([path, "features"], capture_output=True, timeout=FEATURES_S, check=True)
        return decoding.from_json(done.stdout, _Told).mount_options
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError, UnicodeDecodeError):
        return ()


def check_sandbox(config: SandboxConfig) -> None:
    """Refuse a pod that its handler cannot run. Raises NotFound, Unsupported."""
    program(config.handler)
    if (config.uid_map or config.auto_ids) and not features(config.handler).user_namespaces:
        why = f"the runtime handler {config.handler} is not known to map its ids"
        raise Unsupported("use a user namespace", why, "use the handler minirt, or the host's users")


def check_container(handler: str, config: ContainerConfig) -> None:
    """Refuse a container that the handler would run otherwise than asked. Raises NotFound, Unsupported."""
    if any(one.recursive for one in config.volumes) and not features(handler).recursive_read_only_mounts:
        why = f"the runtime handler {handler} does not say that it has recursive read-only mounts"
        raise Unsupported("mount a volume read-only with all below it", why, "use the handler minirt")
    if handler not in OWN and (config.images or any(one.uid_map for one in config.volumes)):
        why = f"the runtime handler {handler} would have to do it, and may do it otherwise"
        raise Unsupported("mount an image, or map a mount's ids", why, "use the handler minirt")
