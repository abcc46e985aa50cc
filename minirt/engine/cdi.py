"""CDI, the Container Device Interface: what vendors' files say a container needs for a device of theirs.

    /etc/cdi/*.json, *.yaml         vendor.com/class=name ──▶ environment, device nodes, mounts, groups, hooks
    /var/run/cdi/…                  one that is here, too, counts more than one in /etc/cdi

A file that is wrong is nobody's concern until a device is asked for that no other file has.
Source: https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct, field, structs

from minirt import decoding, paths
from minirt.cgroups.resources import DeviceRule
from minirt.engine.devices import devices_at, rules_for
from minirt.engine.records import CDI_ANNOTATIONS, ContainerConfig
from minirt.errors import Conflict, InvalidInput, MinirtError, NotFound, Unsupported
from minirt.oci.hooks import Hook
from minirt.oci.spec import Device, Mount

VERSIONS = frozenset({"0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0"})
_WORD = r"[A-Za-z](?:[\w.-]*[A-Za-z0-9])?"
_KIND = re.compile(rf"{_WORD}/{_WORD}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9](?:[\w.:-]*[A-Za-z0-9])?", re.ASCII)


class DeviceNode(Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """A node; what is not given is that of the host's at ``host_path`` (or else at ``path``)."""

    path: str
    host_path: str = ""
    type: Literal["", "c", "u", "b", "p"] = ""
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    permissions: str = "rwm"
    uid: int | None = None
    gid: int | None = None


class CdiMount(Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """A mount, as the OCI spec has them."""

    host_path: str
    container_path: str
    type: str = ""
    options: tuple[str, ...] = ()


class CdiHook(Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """A hook of the OCI spec, with the moment that it is for."""

    hook_name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class Edits(Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """What a container gets. The last two are refused when they ask for something."""

    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[CdiMount, ...] = ()
    hooks: tuple[CdiHook, ...] = ()
    additional_gids: tuple[int, ...] = ()
    intel_rdt: dict[str, Any] | None = None
    net_devices: tuple[dict[str, Any], ...] = ()


class CdiDevice(Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """One device: a name for edits."""

    name: str
    container_edits: Edits
    annotations: dict[str, str] = field(default_factory=dict)


class Document(Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """A file: devices of one kind; ``container_edits`` are for whoever gets any of them."""

    cdi_version: str
    kind: str
    devices: tuple[CdiDevice, ...]
    container_edits: Edits = Edits()
    annotations: dict[str, str] = field(default_factory=dict)


class _Found(NamedTuple):
    path: Path
    document: Document
    device: CdiDevice


def is_qualified(name: str) -> bool:
    """Say whether a word is a device's whole name, vendor/class=name."""
    kind, sign, device = name.partition("=")
    return bool(sign and _KIND.fullmatch(kind) and _NAME.fullmatch(device))


def annotated(annotations: dict[str, str]) -> list[str]:
    """Return the devices that annotations ask for."""
    found = [value.split(",") for key, value in sorted(annotations.items()) if key.startswith(CDI_ANNOTATIONS)]
    return [name for names in found for name in names]


def applied(config: ContainerConfig, names: Iterable[str]) -> ContainerConfig:
    """Return a container's configuration with what the devices of these names need; each counts once.

    Raises:
        InvalidInput: a name that is none, or what is no device of the host.
        NotFound: no file has the device. Conflict: two files of one directory have it.
        Unsupported: it needs something that minirt does not do.
    """
    edited: set[Path] = set()
    for name in dict.fromkeys(names):
        found = _find(name)
        what = f"use the device {name}"
        if found.path not in edited:
            config = _edited(config, found.document.container_edits, what)
            edited.add(found.path)
        config = _edited(config, found.device.container_edits, what)
    return config


def _find(name: str) -> _Found:
    what = f"use the device {name}"
    if not is_qualified(name):
        raise InvalidInput(what, "it is not VENDOR/CLASS=NAME", "for example vendor.com/gpu=0")
    wrong: list[str] = []
    for directory in reversed(paths.cdi_dirs()):
        found = list(_having(name, directory, wrong))
        if len(found) > 1:
            why = f"{found[0].path} and {found[1].path} both have it"
            raise Conflict(what, why, "remove one of these files, or have it in one only")
        if found:
            return found[0]
    there = " or ".join(map(str, paths.cdi_dirs()))
    do = f"{len(wrong)} of the files cannot be used: {'; '.join(wrong)}" if wrong else "see the vendor's generator"
    raise NotFound(what, f"no file in {there} has it", do)


def _having(name: str, directory: Path, wrong: list[str]) -> Iterator[_Found]:
    """Yield what has a device in a directory; files that cannot be used are told to ``wrong``."""
    kind, _, device = name.partition("=")
    files = sorted(directory.iterdir()) if directory.is_dir() else []
    for path in files:
        if path.suffix not in {".json", ".yaml", ".yml"}:
            continue
        try:
            document = load(path)
        except MinirtError as error:
            wrong.append(f"{path.name}: {error.why}")
            continue
        if document.kind == kind:
            yield from (_Found(path, document, one) for one in document.devices if one.name == device)


def load(path: Path) -> Document:
    """Return what a file says. Raises InvalidInput: it cannot be read, or is none; the message names the field."""
    try:
        content = path.read_bytes()
        is_json = path.suffix == ".json"
        plain = msgspec.json.decode(content) if is_json else msgspec.yaml.decode(content)
        found = decoding.convert(plain, Document)
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise InvalidInput(f"use {path}", str(error)) from error
    if found.cdi_version.removeprefix("v") not in VERSIONS:
        raise InvalidInput(
            f"use {path}", f"its cdiVersion {found.cdi_version} is none of {', '.join(sorted(VERSIONS))}"
        )
    if not _KIND.fullmatch(found.kind):
        raise InvalidInput(f"use {path}", f"its kind {found.kind!r} is not VENDOR/CLASS")
    for device in found.devices:
        if not _NAME.fullmatch(device.name):
            raise InvalidInput(f"use {path}", f"{device.name!r} is not a device's name")
    return found


def _edited(config: ContainerConfig, edits: Edits, what: str) -> ContainerConfig:
    for asked, name in ((edits.intel_rdt, "intelRdt"), (edits.net_devices, "netDevices")):
        if asked:
            raise Unsupported(what, f"it needs {name}, which minirt does not do")
    nodes, rules = _nodes(edits.device_nodes)
    security = structs.replace(config.security, groups=(*config.security.groups, *edits.additional_gids))
    env = (one.partition("=")[::2] for one in edits.env)
    return structs.replace(
        config,
        env=(*config.env, *env),
        devices=(*config.devices, *nodes),
        resources=structs.replace(config.resources, devices=(*config.resources.devices, *rules)),
        mounts=(*config.mounts, *map(_mount, edits.mounts)),
        hooks=(*config.hooks, *(_hook(one, what) for one in edits.hooks)),
        security=security,
    )


def _nodes(asked: Iterable[DeviceNode]) -> tuple[list[Device], list[DeviceRule]]:
    nodes: list[Device] = []
    rules: list[DeviceRule] = []
    for one in asked:
        node = _node(one)
        nodes.append(node)
        rules += rules_for((node,) if node.type != "p" else (), one.permissions)
    return nodes, rules


def _node(asked: DeviceNode) -> Device:
    """Return a node; the host is looked at only for what is not given. Raises InvalidInput: it has none there."""
    if asked.type and asked.major is not None:
        found = Device(asked.path, asked.type, asked.major, asked.minor or 0)
    else:
        found = _of_host(asked)
    own = {"file_mode": asked.file_mode, "uid": asked.uid, "gid": asked.gid}
    return structs.replace(found, **{name: value for name, value in own.items() if value is not None})


def _of_host(asked: DeviceNode) -> Device:
    host = asked.host_path or asked.path
    nodes = devices_at(host, asked.path)
    if len(nodes) > 1 or nodes[0].path != asked.path:
        raise InvalidInput(f"use the device {host}", "it is a directory", "name one device")
    return nodes[0]


def _mount(asked: CdiMount) -> Mount:
    kind = asked.type or "bind"
    bind = ("rbind",) if kind in {"bind", "none"} and not {"bind", "rbind"} & {*asked.options} else ()
    return Mount(os.path.normpath(asked.container_path), kind, asked.host_path, (*bind, *asked.options))


def _hook(asked: CdiHook, what: str) -> Hook:
    if asked.hook_name != "createContainer":
        why = f"it needs a hook at {asked.hook_name}, and minirt runs those at createContainer"
        raise Unsupported(what, why, "minirt-oci below podman or containerd runs all of them")
    return Hook(asked.path, asked.args, asked.env, asked.timeout)
