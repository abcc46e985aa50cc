"""A container becomes an image: its upper directory is one more layer, and the config says how it was run.

Source: moby's image/spec/v1.2.md; Dockerfile reference, for what ``changes`` may say
"""

import contextlib
import datetime
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from minirt import decoding
from minirt.errors import ImageError, InvalidInput
from minirt.images import manifest
from minirt.images.blobs import Blobs
from minirt.images.catalog import Record
from minirt.images.install import Installation, NoSource
from minirt.images.layer import pack
from minirt.images.make import make_manifest
from minirt.images.manifest import DOCKER_LAYER, OCI_LAYER, Descriptor, Manifest
from minirt.images.rootfs import store_archive
from minirt.images.snapshots import Overlay
from minirt.images.workspace import Workspace

LISTS = {"CMD": "Cmd", "ENTRYPOINT": "Entrypoint"}
TEXTS = {"USER": "User", "WORKDIR": "WorkingDir", "STOPSIGNAL": "StopSignal"}
SETS = {"EXPOSE": "ExposedPorts", "VOLUME": "Volumes"}


class Commit(Struct, frozen=True):
    """What is said of a commit: ``run``, fields of the config in docker's words; ``changes``, lines of a Dockerfile."""

    run: dict[str, Any]
    created_by: str
    changes: tuple[str, ...] = ()
    author: str = ""
    message: str = ""


Pausing = contextlib.AbstractContextManager[None]


def commit(
    base: Record,
    overlay: Overlay,
    without: Callable[[str], bool],
    what: Commit,
    job: Workspace,
    paused: Pausing | None = None,
) -> Record:
    """Install the image of ``base`` with a container's changes on top; return its record, without names.

    The changes are read while ``paused`` is entered, and compressed and stored after that.

    Raises:
        InvalidInput: a change cannot be read. ImageError: the base's blobs are gone, or the disk is full.
    """
    blobs = Blobs(job.root)
    config = json.loads(blobs.read(base.id))
    config["config"] = (config.get("config") or {}) | what.run
    for line in what.changes:
        apply(config["config"], line)
    archive = job.path / "changes.tar"
    try:
        with archive.open("wb") as file, paused or contextlib.nullcontext():
            pack(Path(overlay.upper), file, overlay=True, without=without)
    except OSError as error:
        raise ImageError("commit the container", error.strerror or str(error), "is the disk full?") from error
    layer, diff_id = store_archive(archive, "the container's changes", job)
    archive.unlink()
    _describe(config, diff_id, what)
    found = manifest.read(blobs.read(base.manifest), base.id)
    assert isinstance(found, Manifest)
    layers = [*map(_as_oci, found.layers), layer]
    return Installation(job, NoSource()).run(make_manifest(msgspec.json.encode(config), layers, job), "the new image")


def _describe(config: dict[str, Any], diff_id: str, what: Commit) -> None:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    config["created"] = now
    config["rootfs"]["diff_ids"].append(diff_id)
    step = {"created": now, "created_by": what.created_by, "author": what.author, "comment": what.message}
    config["history"] = [*(config.get("history") or ()), {key: value for key, value in step.items() if value}]
    if what.author:
        config["author"] = what.author


def _as_oci(layer: Descriptor) -> Descriptor:
    """Return a layer's descriptor in OCI's words, for a manifest that is OCI's."""
    kind = layer.media_type
    if kind.startswith(DOCKER_LAYER):
        kind = OCI_LAYER + ("+gzip" if kind.endswith(".gzip") else "+zstd" if kind.endswith(".zstd") else "")
    return structs.replace(layer, media_type=kind)


def apply(config: dict[str, Any], line: str) -> None:
    """Apply one line of a Dockerfile to a config in docker's words.

    Raises:
        InvalidInput: it says nothing, or is none of CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME,
            WORKDIR.
    """
    word, _, rest = line.strip().partition(" ")
    word, rest = word.upper(), rest.strip()
    if not rest:
        raise InvalidInput(f"apply the change {line!r}", "it says nothing", "for example CMD /bin/sh")
    if word in LISTS:
        config[LISTS[word]] = _words(rest) or ["/bin/sh", "-c", rest]
    elif word in TEXTS:
        config[TEXTS[word]] = rest
    elif word in SETS:
        names = _words(rest) or _split(rest)
        if word == "EXPOSE":
            names = [name if "/" in name else f"{name}/tcp" for name in names]
        config[SETS[word]] = (config.get(SETS[word]) or {}) | {name: {} for name in names}
    elif word == "ENV":
        kept = [one for one in config.get("Env") or () if one.partition("=")[0] not in _pairs(rest)]
        config["Env"] = kept + [f"{key}={value}" for key, value in _pairs(rest).items()]
    elif word == "LABEL":
        config["Labels"] = (config.get("Labels") or {}) | _pairs(rest)
    else:
        known = ", ".join(sorted((*LISTS, *TEXTS, *SETS, "ENV", "LABEL")))
        raise InvalidInput(f"apply the change {line!r}", f"{word} is none that a commit can make", f"use {known}")


def _words(text: str) -> list[str]:
    """Return a JSON list of strings, nothing where it is none."""
    if not text.startswith("["):
        return []
    try:
        return decoding.from_json(text, list[str])
    except msgspec.DecodeError as error:
        raise InvalidInput(f"read {text!r}", str(error), 'write a list as ["a", "b"]') from error


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidInput(f"read {text!r}", str(error), "close the quotes") from error


def _pairs(text: str) -> dict[str, str]:
    """Return KEY=VALUE pairs; the old form KEY VALUE is one pair."""
    words = _split(text)
    if "=" not in words[0]:
        key, _, value = text.partition(" ")
        return {key: value.strip()}
    if wrong := [word for word in words if word.find("=") < 1]:
        raise InvalidInput(f"read {text!r}", f"{wrong[0]!r} is no KEY=VALUE", "quote values that have spaces")
    return {key: value for key, _, value in (word.partition("=") for word in words)}
