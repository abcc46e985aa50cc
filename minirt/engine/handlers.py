"""Runtime handlers: who runs a pod's containers, by the name that a RuntimeClass gives.

The empty name and ``minirt`` are this runtime itself. ``runc`` and ``crun`` are those programs, where they are
installed: the sandbox, images, networks, logs and streams are minirt's all the same.
"""

import functools
import shutil
import subprocess

import msgspec
from msgspec import Struct, field

from minirt.errors import NotFound

OWN = ("", "minirt")
FOREIGN = ("runc", "crun")
FEATURES_S = 10.0
"""How long a runtime may take to say what it can do."""


class Features(Struct, frozen=True):
    """What a handler can do, of what a kubelet asks."""

    recursive_read_only_mounts: bool = False
    user_namespaces: bool = False


class _Enabled(Struct):
    enabled: bool | None = None


class _Extensions(Struct):
    idmap: _Enabled = field(default_factory=_Enabled)


class _Linux(Struct, rename="camel"):
    mount_extensions: _Extensions = field(default_factory=_Extensions)


class _Told(Struct, rename="camel"):
    """What ``runc features`` prints, as far as it is of use. Source: the OCI runtime spec, features.md."""

    mount_options: tuple[str, ...] = ()
    linux: _Linux = field(default_factory=_Linux)


def installed() -> tuple[str, ...]:
    """Return the other runtimes that this machine has."""
    return tuple(name for name in FOREIGN if shutil.which(name))


def program(handler: str) -> str:
    """Return the program of a handler, "" for our own. Raises NotFound: it is unknown, or not installed."""
    if handler in OWN:
        return ""
    found = shutil.which(handler) if handler in FOREIGN else None
    if not found:
        why = "it is not installed" if handler in FOREIGN else f"there are {', '.join(('minirt', *installed()))}"
        raise NotFound(f"use the runtime handler {handler!r}", why, "install it, or take another")
    return found


@functools.cache
def features(path: str) -> Features:
    """Return what the runtime at ``path`` says of itself; nothing where it has no such command.

    Volumes of a pod with a user namespace are mounted with its ids: so that takes idmapped mounts.
    """
    try:
        done = subprocess.run([path, "features"], capture_output=True, timeout=FEATURES_S, check=True)
        told = msgspec.json.decode(done.stdout, type=_Told)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError):
        return Features()
    return Features("rro" in told.mount_options, bool(told.linux.mount_extensions.idmap.enabled))
