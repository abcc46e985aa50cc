"""How an image came about: the steps that its config tells of, beside the layers that they made."""

import os
import stat
from pathlib import Path

from msgspec import Struct

from minirt.images import manifest
from minirt.images.blobs import Blobs
from minirt.images.catalog import Record
from minirt.images.image import chain_ids
from minirt.images.snapshots import Snapshots


class Step(Struct, frozen=True):
    """One step: when (RFC 3339 or ""), by what command, which layer ("" for none) and how much is in its files."""

    created: str
    created_by: str
    comment: str
    diff_id: str
    size_bytes: int


def steps(root: Path, record: Record) -> list[Step]:
    """Return an image's steps, the last one first. Layers that its history does not tell of are steps without words."""
    config = manifest.read_config(Blobs(root).read(record.id), record.id)
    snapshots = Snapshots(root)
    chain = chain_ids(record.diff_ids)
    layers = [(diff_id, _files_bytes(snapshots.layer(at))) for diff_id, at in zip(record.diff_ids, chain, strict=True)]
    told = []
    for entry in config.history or ():
        diff_id, size_bytes = ("", 0) if entry.get("empty_layer") or not layers else layers.pop(0)
        created, how, comment = (str(entry.get(key) or "") for key in ("created", "created_by", "comment"))
        told.append(Step(created, how, comment, diff_id, size_bytes))
    told += [Step("", "", "", diff_id, size_bytes) for diff_id, size_bytes in layers]
    return told[::-1]


def _files_bytes(layer: Path) -> int:
    """Return the length of all regular files of a layer, each inode once, as docker counts it."""
    sizes = {}
    for *_, names, fd in os.fwalk(layer):
        for name in names:
            found = os.lstat(name, dir_fd=fd)
            if stat.S_ISREG(found.st_mode):
                sizes[found.st_ino] = found.st_size
    return sum(sizes.values())
