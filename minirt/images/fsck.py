"""The store compared with itself: what a crash, a bad disk or a hand in the wrong place has left, found and repaired.

    index        images.json can be read; else it is made anew from the manifests that are here whole
    blobs        each is what its name says
    layers       each is whole: a directory fs below its chain id
    images       each has all its blobs (else it goes, and what is whole of it is kept for the next pull), and all its
                 layers (else they are unpacked again from their blobs)
    containers   each layer.json can be read, and its layers are here
    jobs         no files of dead jobs, no leases that are too old or damaged, nothing waiting to be deleted
    garbage      no blobs and layers that nothing uses

Other processes may use the store meanwhile: what is looked at for long is immutable, what is changed is changed under
the store's locks. A blob that is whole is never removed but as garbage, which ``rm`` and ``prune`` would remove too.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from minirt.errors import ImageError
from minirt.images import garbage, manifest
from minirt.images.blobs import LARGEST_DOCUMENT, Blobs, hex_of
from minirt.images.catalog import Catalog, Record
from minirt.images.garbage import children
from minirt.images.image import chain_ids
from minirt.images.manifest import Manifest
from minirt.images.snapshots import Snapshots
from minirt.images.workspace import keep, left_over, locked, sweep, workspace


class Finding(Struct, frozen=True):
    """One thing that is wrong: ``what`` and ``why``; ``remedy`` is what repairing does, "" where nothing can be."""

    what: str
    why: str
    remedy: str


def fsck(root: Path, *, repair: bool = False) -> Iterator[Finding]:
    """Yield what is wrong with the store at ``root``; with ``repair`` it has been repaired when it is yielded.

    Raises:
        ImageError: the disk cannot be written to (it is full).
    """
    if root.exists():
        store = _Check(root, repair)
        for part in (store.index, store.blobs, store.layers, store.images, store.containers, store.jobs, store.garbage):
            yield from part()


class _Check:
    def __init__(self, root: Path, repair: bool) -> None:
        self._root = root
        self._repair = repair
        self._catalog = Catalog(root)
        self._blobs = Blobs(root)
        self._snapshots = Snapshots(root)
        self._bad: set[str] = set()
        """Blobs and layers (hexadecimal) that are as good as not there."""

    def index(self) -> Iterator[Finding]:
        """Look at images.json itself."""
        try:
            self._catalog.records()
        except ImageError as error:
            if self._repair:
                with locked(self._root):
                    self._catalog.begin_anew(self._recovered())
            remedy = "it is set aside, and made anew from the manifests that are here; names have to be given again"
            yield Finding("images.json", error.why, remedy)

    def _recovered(self) -> list[Record]:
        """Return a record, without names, of every image whose manifest, config and layers are here."""
        found: dict[str, Record] = {}
        for path in children(self._root / "blobs" / "sha256"):
            if path.stat().st_size <= LARGEST_DOCUMENT and path.read_bytes()[:1] == b"{":
                record = self._record(f"sha256:{path.name}")
                if record:
                    found[record.id] = record
        return list(found.values())

    def _record(self, digest: str) -> Record | None:
        try:
            found = manifest.read(self._blobs.read(digest), digest)
            if not isinstance(found, Manifest):
                return None
            config = manifest.read_config(self._blobs.read(found.config.digest), digest)
            blobs = [digest, found.config.digest, *(layer.digest for layer in found.layers)]
            if not all(map(self._blobs.has, blobs)):
                return None
        except (ImageError, ValueError):
            return None  # another document, or one of an image that is not whole
        size_bytes = found.config.size + sum(layer.size for layer in found.layers)
        return Record(found.config.digest, digest, blobs, config.rootfs.diff_ids, size_bytes)

    def blobs(self) -> Iterator[Finding]:
        """Read every blob."""
        for path in children(self._root / "blobs" / "sha256"):
            why = _wrong_with_blob(path)
            if why:
                self._bad.add(path.name)
                self._discard(path)
                yield Finding(f"blob {path.name}", why, "it is removed")

    def layers(self) -> Iterator[Finding]:
        """Look whether each layer is one."""
        for path in children(self._root / "snapshots"):
            if path.name != "containers" and (os.listdir(path) if path.is_dir() else []) != ["fs"]:
                self._bad.add(path.name)
                self._discard(path)
                yield Finding(f"layer {path.name}", "it is not a directory with fs in it", "it is removed")

    def images(self) -> Iterator[Finding]:
        """Look whether each image has all that it consists of."""
        for record in self._records():
            whole = [digest for digest in record.blobs if self._has_blob(digest)]
            chain = chain_ids(record.diff_ids)
            if len(whole) < len(set(record.blobs)):
                if self._repair:
                    keep(self._root, (*whole, *chain))
                    with self._catalog.changing() as records:
                        records[:] = [one for one in records if one.id != record.id]
                missing = next(digest for digest in record.blobs if digest not in whole)
                remedy = "it is removed; pull it again, for a day nothing that is whole has to be fetched for it"
                yield Finding(_called(record), f"its blob {missing[7:]} is not here", remedy)
            elif gone := [chain_id for chain_id in chain if not self._has_layer(chain_id)]:
                if self._repair:
                    self._unpack(record, chain)
                yield Finding(_called(record), f"its layer {gone[0][7:]} is not unpacked", "it is unpacked again")

    def _unpack(self, record: Record, chain: list[str]) -> None:
        with workspace(self._root) as job:
            job.lease((*record.blobs, *chain))
            layers = zip(record.blobs[2:], record.diff_ids, strict=True)
            for count, (digest, diff_id) in enumerate(layers, 1):
                self._snapshots.unpack(self._blobs.path(digest), diff_id, chain[:count], job)
        self._bad -= {hex_of(chain_id) for chain_id in chain}

    def containers(self) -> Iterator[Finding]:
        """Look at what is left of containers that were being made, and whether others have their layers."""
        for path in children(self._root / "snapshots" / "containers"):
            chain = garbage.layers_of(path)
            if path.name.endswith(garbage.NEW) or chain is None:
                with locked(self._root):
                    if not path.exists():
                        continue  # it was being made, and now it is
                    if self._repair:
                        garbage.discard(self._root, path)
                yield Finding(f"writable layer {path.name}", "it is half made", "it is removed")
            elif gone := [chain_id for chain_id in chain if not self._has_layer(chain_id)]:
                yield Finding(f"container {path.name}", f"its layer {gone[0][7:]} is not here", "")

    def jobs(self) -> Iterator[Finding]:
        """Look for what dead jobs have left."""
        for path, why in left_over(self._root):
            yield Finding(f"{path.relative_to(self._root)}", why, "it is removed")
        stray = list(self._root.glob("images.json.new"))
        for path in (*stray, *children(self._root / "trash")):
            yield Finding(f"{path.relative_to(self._root)}", "whoever began with it has died", "it is removed")
        if self._repair:
            sweep(self._root)
            with locked(self._root):
                for path in stray:
                    path.unlink(missing_ok=True)
            for path in children(self._root / "trash"):
                garbage.delete(path)

    def garbage(self) -> Iterator[Finding]:
        """Look for what nothing uses."""
        try:
            with locked(self._root):
                unused = garbage.unused(self._root)
            if self._repair:
                garbage.collect(self._root)
        except ImageError:
            return  # the index or a lease is damaged, which has been told
        for path in unused:
            if path.name not in self._bad:
                yield Finding(f"{path.relative_to(self._root)}", "nothing uses it", "it is removed")

    def _records(self) -> list[Record]:
        try:
            return self._catalog.records()
        except ImageError:
            return []  # told before

    def _has_blob(self, digest: str) -> bool:
        return hex_of(digest) not in self._bad and self._blobs.has(digest)

    def _has_layer(self, chain_id: str) -> bool:
        return hex_of(chain_id) not in self._bad and self._snapshots.layer(chain_id).exists()

    def _discard(self, path: Path) -> None:
        if self._repair:
            with locked(self._root):
                gone = garbage.discard(self._root, path)
            garbage.delete(gone)


def _wrong_with_blob(path: Path) -> str:
    """Say what is wrong with a blob, "" for nothing; one that has gone meanwhile is fine."""
    import hashlib

    if path.is_symlink() or not path.is_file():
        return "it is no file"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
    except OSError as error:
        if error.errno == errno.EIO:
            return "the disk cannot read it"
        raise
    return "" if found == path.name else f"its content is {found}"


def _called(record: Record) -> str:
    return f"image {record.names[0] if record.names else record.id[7:19]}"
