"""The OCI runtime spec's config.json, in types: what of it this version does, and no more.

A field that is not here is refused by name (``forbid_unknown_fields``), never ignored.
Source: https://github.com/opencontainers/runtime-spec/blob/main/config.md and config-linux.md
"""

from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from minirt.cgroups.resources import Resources
from minirt.errors import InvalidInput
from minirt.security.profile import Seccomp

VERSION = "1.2.0"
Propagation = Literal["", "private", "rprivate", "slave", "rslave"]
NamespaceKind = Literal["mount", "pid", "uts", "ipc", "network", "cgroup"]


class User(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """Numeric ids inside the container, and the umask of its first process."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()


class Capabilities(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """The five sets, as names (CAP_CHOWN)."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Rlimit(Struct, forbid_unknown_fields=True, frozen=True):
    """One resource limit: ``type`` is RLIMIT_NOFILE and its kin."""

    type: str
    soft: int
    hard: int


class ConsoleSize(Struct, forbid_unknown_fields=True, frozen=True):
    """A terminal's size in characters."""

    height: int
    width: int


class Process(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """A process to execute: the container's init, or an exec'd one."""

    args: tuple[str, ...]
    cwd: str = "/"
    env: tuple[str, ...] = ()
    user: User = User()
    terminal: bool = False
    console_size: ConsoleSize | None = None
    capabilities: Capabilities = Capabilities()
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: int | None = None


class Root(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """The root file system: a directory, relative to the bundle or absolute."""

    path: str
    readonly: bool = False


class Mount(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """One mount; ``options`` are those of mount(8), propagation among them."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()

    @property
    def cause(self) -> str:
        """Return what the journal names as the reason for this mount."""
        return f"mounts {self.destination}"


class Namespace(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """A namespace: a new one, or with ``path`` an existing one to join."""

    type: NamespaceKind
    path: str = ""


class Device(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """A device node to make: type ``c``, ``b`` or ``p``."""

    path: str
    type: str
    major: int = 0
    minor: int = 0
    file_mode: int = 0o666
    uid: int = 0
    gid: int = 0


class Linux(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """What only Linux has."""

    namespaces: tuple[Namespace, ...] = ()
    cgroups_path: str = ""
    resources: Resources = Resources()
    devices: tuple[Device, ...] = ()
    sysctl: dict[str, str] = field(default_factory=dict)
    rootfs_propagation: Propagation = ""
    seccomp: Seccomp | None = None
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()


class Spec(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """A container's config.json."""

    oci_version: str
    process: Process
    root: Root
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    linux: Linux = Linux()
    annotations: dict[str, str] = field(default_factory=dict)


def load(path: Path) -> Spec:
    """Return the spec in a config.json.

    Raises:
        InvalidInput: it is missing, is no JSON, or has a wrong or unsupported field (the message names its path).
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Spec)
    except OSError as error:
        raise InvalidInput(f"read {path}", error.strerror or str(error), "a bundle holds a config.json") from error
    except msgspec.DecodeError as error:
        raise InvalidInput(f"use {path}", str(error)) from error


def save(spec: Spec, path: Path) -> None:
    """Write a spec as config.json, whole or not at all."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(spec))
    temporary.rename(path)


def as_plain(spec: Spec) -> dict[str, Any]:
    """Return a spec as JSON's plain types."""
    plain: dict[str, Any] = msgspec.to_builtins(spec)
    return plain
