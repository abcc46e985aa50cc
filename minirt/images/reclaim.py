"""Room on the disk: what images and containers take of it, and which images can go.

An image that a container stands on never goes. The others go by ``prune`` (those without a name, or all of them), or by
``gc``, as the kubelet does it: when the disk is fuller than the high threshold, the longest unused first, until it is
no fuller than the low one. When an image was used last is the mtime of its config's blob.

Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/#containers-images
"""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from minirt.images import disk, garbage
from minirt.images.blobs import Blobs, hex_of
from minirt.images.catalog import Catalog, Record
from minirt.images.image import chain_ids
from minirt.images.snapshots import Snapshots
from minirt.images.workspace import locked

HIGH_PERCENT, LOW_PERCENT = 85, 80
MIN_AGE_S = 120
"""Images that were used less than two minutes ago stay: somebody may be about to run one. As the kubelet has it."""


class Share(Struct, frozen=True):
    """What one kind of thing takes: how many there are, how many are in use, bytes on the disk, bytes that could go."""

    kind: str
    total: int
    active: int
    size_bytes: int
    reclaimable_bytes: int


class Reclaimed(Struct):
    """What went: a line for each, and bytes on the disk."""

    lines: list[str]
    size_bytes: int = 0


def prune(root: Path, *, everything: bool = False) -> Reclaimed:
    """Remove images that no container stands on: those without a name, or with ``everything`` all."""
    with Catalog(root).changing() as records:
        used = Snapshots(root).images()
        gone = [record for record in records if record.id not in used and (everything or not record.names)]
        records[:] = [record for record in records if record not in gone]
    return _collect(root, gone)


def gc(
    root: Path, high: int = HIGH_PERCENT, low: int = LOW_PERCENT, min_age_s: float = MIN_AGE_S
) -> Iterator[Reclaimed]:
    """Remove images while the disk is too full; yield after each. ``high`` and ``low`` are percents of the disk."""
    if percent_used(root) <= high:
        return
    tried: set[str] = set()
    while percent_used(root) > low and (oldest := _oldest(root, min_age_s, tried)):
        tried.add(oldest.id)
        with Catalog(root).changing() as records:
            gone = [
                record for record in records if record.id == oldest.id and record.id not in Snapshots(root).images()
            ]
            records[:] = [record for record in records if record not in gone]
        yield _collect(root, gone)


def _oldest(root: Path, min_age_s: float, tried: Iterable[str]) -> Record | None:
    used, blobs, now = Snapshots(root).images(), Blobs(root), time.time()
    waiting = [record for record in Catalog(root).records() if record.id not in used and record.id not in tried]
    old = [record for record in waiting if now - blobs.used_at(record.id) >= min_age_s]
    return min(old, key=lambda record: blobs.used_at(record.id), default=None)


def percent_used(root: Path) -> float:
    """Return how full the disk of the store is for its users, as df(1) counts it."""
    found = os.statvfs(next(path for path in (root, *root.parents) if path.exists()))
    used = found.f_blocks - found.f_bfree
    return 100 * used / max(1, used + found.f_bavail)


def _collect(root: Path, gone: list[Record]) -> Reclaimed:
    """Collect garbage after these records went; with no record gone, what is unused goes all the same."""
    with locked(root):
        size_bytes = sum(map(disk.usage_bytes, garbage.unused(root)))
    deleted = garbage.collect(root)
    untagged = [f"Untagged: {name}" for record in gone for name in (*record.names, *record.digests)]
    return Reclaimed(untagged + [f"Deleted: {digest}" for digest in deleted], size_bytes)


def usage(root: Path) -> list[Share]:
    """Return what images, containers' writable layers, and downloads kept for the next try take."""
    records, used = Catalog(root).records(), Snapshots(root).images()
    sizes = _Sizes(root)
    images = sizes.of(records)
    rest = sizes.of([record for record in records if record.id in used])
    homes = garbage.children(root / "snapshots" / "containers")
    jobs = garbage.children(root / "tmp")
    kept = sum(map(disk.usage_bytes, (path for path in jobs if path.is_dir()))) + sizes.of_others(records)
    return [
        Share("Images", len(records), len(used), images, images - rest),
        Share("Containers", len(homes), len(homes), sum(map(disk.usage_bytes, homes)), 0),
        Share("Kept downloads", sum(path.is_dir() for path in jobs), 0, kept, kept),
    ]


class _Sizes:
    """Sizes on the disk, each file of the store looked at once."""

    def __init__(self, root: Path) -> None:
        layers = [path for path in garbage.children(root / "snapshots") if path.name != "containers"]
        self._blobs = {path.name: disk.usage_bytes(path) for path in garbage.children(root / "blobs" / "sha256")}
        self._layers = {path.name: disk.usage_bytes(path) for path in layers}

    def of(self, records: list[Record]) -> int:
        """Return what these images take together; what they share counts once."""
        blobs = {hex_of(digest) for record in records for digest in record.blobs}
        layers = {hex_of(chain_id) for record in records for chain_id in chain_ids(record.diff_ids)}
        return sum(self._blobs.get(one, 0) for one in blobs) + sum(self._layers.get(one, 0) for one in layers)

    def of_others(self, records: list[Record]) -> int:
        """Return what all takes that is none of these images'."""
        return sum(self._blobs.values()) + sum(self._layers.values()) - self.of(records)
