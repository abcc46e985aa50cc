"""The OCI runtime spec's config.json, in types.

A field that is not here is refused by name (``forbid_unknown_fields``), never ignored; of those that are here, some
are refused when they ask for something: see refusals.py.
Source: https://github.com/opencontainers/runtime-spec/blob/main/config.md and config-linux.md
"""

import os
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
from msgspec import Struct, field

from minirt import decoding
from minirt.cgroups.resources import Resources
from minirt.errors import InvalidInput
from minirt.linux.integers import I32, I64, U16, U32, U64, Major, Minor
from minirt.oci.hooks import Hooks
from minirt.security.profile import Seccomp

if TYPE_CHECKING:
    from pathlib import Path

Document = TypeVar("Document")
Propagation = Literal["", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"]
NamespaceKind = Literal["mount", "pid", "uts", "ipc", "network", "cgroup", "time", "user"]


class User(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """Numeric ids inside the container, and the umask of its first process."""

    uid: U32 = 0
    gid: U32 = 0
    umask: U32 | None = None
    additional_gids: tuple[U32, ...] = ()
    username: str = ""


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

    height: U16
    width: U16


class Scheduler(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """A scheduling policy (SCHED_FIFO) and its attributes; the times are SCHED_DEADLINE's, in ns."""

    policy: str
    nice: I32 = 0
    priority: I32 = 0
    flags: tuple[str, ...] = ()
    runtime: U64 = 0
    deadline: U64 = 0
    period: U64 = 0


class IoPriority(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """How soon I/O is served: IOPRIO_CLASS_RT, _BE or _IDLE, and 0 (first) to 7."""

    level: str = field(name="class")
    priority: int = 0


class Affinity(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """The CPUs (``0-3,7``) of an exec'd process: before it is in the container's cgroup, and from then on."""

    initial: str = ""
    final: str = ""


class Process(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """A process to execute: the container's init, or an exec'd one."""

    args: tuple[str, ...] = ()
    cwd: str = "/"
    env: tuple[str, ...] = ()
    user: User = User()
    terminal: bool = False
    console_size: ConsoleSize | None = None
    capabilities: Capabilities = Capabilities()
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: I32 | None = None
    apparmor_profile: str = ""
    selinux_label: str = ""
    scheduler: Scheduler | None = None
    io_priority: IoPriority | None = None
    exec_cpu_affinity: Affinity = field(default=Affinity(), name="execCPUAffinity")
    command_line: str = ""


class Root(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """The root file system: a directory, relative to the bundle or absolute."""

    path: str
    readonly: bool = False


class IdMapping(Struct, forbid_unknown_fields=True, frozen=True):
    """A line of a map of ids. Of a mount: ``container_id`` is the id on disk, ``host_id`` what it is shown as."""

    container_id: U32 = field(name="containerID")
    host_id: U32 = field(name="hostID")
    size: U32


class Mount(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """One mount; ``options`` are those of mount(8), propagation among them; the mappings are for its files' ids."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()

    @property
    def cause(self) -> str:
        """Return what the journal names as the reason for this mount."""
        return f"mounts {self.destination}"


class Namespace(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """A namespace: a new one, or with ``path`` an existing one to join."""

    type: NamespaceKind
    path: str = ""


class Device(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """A device node to make: type ``c`` (or ``u``), ``b`` or ``p``."""

    path: str
    type: Literal["c", "u", "b", "p"]
    major: Major = 0
    minor: Minor = 0
    file_mode: U32 = 0o666
    uid: U32 = 0
    gid: U32 = 0


class TimeOffset(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """How far ahead of the host's a clock is."""

    secs: I64 = 0
    nanosecs: U32 = 0


class Personality(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """The execution domain: LINUX or LINUX32."""

    domain: str
    flags: tuple[str, ...] = ()


class Linux(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """What only Linux has."""

    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    cgroups_path: str = ""
    resources: Resources = Resources()
    devices: tuple[Device, ...] = ()
    sysctl: dict[str, str] = field(default_factory=dict)
    rootfs_propagation: Propagation = ""
    seccomp: Seccomp | None = None
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str = ""
    personality: Personality | None = None
    time_offsets: dict[Literal["monotonic", "boottime"], TimeOffset] = field(default_factory=dict)
    intel_rdt: dict[str, Any] | None = None
    net_devices: dict[str, Any] = field(default_factory=dict)
    memory_policy: dict[str, Any] | None = None


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
    hooks: Hooks = Hooks()
    solaris: dict[str, Any] | None = None
    windows: dict[str, Any] | None = None
    vm: dict[str, Any] | None = None
    zos: dict[str, Any] | None = None


def load(path: "str | os.PathLike[str]") -> Spec:
    """Return the spec in a config.json.

    Raises:
        InvalidInput: it is missing, is no JSON, or has a wrong or unsupported field (the message names its path).
    """
    return read(path, Spec, "a bundle holds a config.json")


def read(path: "str | os.PathLike[str]", kind: type[Document], do: str = "") -> Document:
    """Return what a JSON file holds, of a type of this module.

    The kernel's strings end at a NUL, so none may hold one. It can stand in JSON only as an escape, which hardly any
    file has: only then is it looked for.

    Raises:
        InvalidInput: it is missing, is no JSON, or has a wrong or unsupported field (the message names its path).
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
        found = decoding.from_json(content, kind)
        if rb"\u0000" in content:
            _refuse_nul(msgspec.json.decode(content), "$")
    except OSError as error:
        raise InvalidInput(f"read {path}", error.strerror or str(error), do) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"use {path}", f"it is no UTF-8: {error.reason} at byte {error.start} of a string"
        ) from error
    except RecursionError as error:
        raise InvalidInput(f"use {path}", "it is nested too deeply to be one") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidInput(f"use {path}", str(error)) from error
    return found


def _refuse_nul(value: Any, at: str) -> None:
    """Raise ValueError for the first string, or name of a field, that holds a NUL."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"Expected `str` without NUL - at `{at}`")
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_nul(key, f"{at}.{key!r}")
            _refuse_nul(inner, f"{at}.{key}")
    if isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_nul(inner, f"{at}[{index}]")


def save(spec: Spec, path: "Path") -> None:
    """Write a spec as config.json, whole or not at all."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(spec))
    temporary.rename(path)


def as_plain(spec: Spec) -> dict[str, Any]:
    """Return a spec as JSON's plain types."""
    plain: dict[str, Any] = msgspec.to_builtins(spec)
    return plain
