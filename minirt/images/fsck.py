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
import stat
from collections.abc import Callable, Iterator
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
        """Blobs and layers (hexadecimal) that repairing would have removed."""

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
            if why := _wrong_with_blob(path):
                self._discard(path)
                yield Finding(f"blob {path.name}", why, "it is removed")

    def layers(self) -> Iterator[Finding]:
        """Look whether each layer is one."""
        with locked(self._root):
            found = [path for path in children(self._root / "snapshots") if path.name != "containers"]
            wrong = [path for path in found if not path.is_dir() or os.listdir(path) != ["fs"]]
        for path in wrong:
            self._discard(path)
            yield Finding(f"layer {path.name}", "it is not a directory with fs in it", "it is removed")

    def images(self) -> Iterator[Finding]:
        """Look whether each image has all that it consists of."""
        with locked(self._root):
            records = self._records()
            broken = [(one, lost) for one in records if (lost := self._lost(one.blobs, self._has_blob))]
        for record, lost in broken:
            if self._repair:
                self._drop(record)
            remedy = "it is removed; pull it again, for a day nothing that is whole has to be fetched for it"
            yield Finding(_called(record), f"its blob {lost[7:]} is not here", remedy)
        with locked(self._root):
            chains = [
                (one, chain_ids(one.diff_ids)) for one in self._records() if one not in [two for two, _ in broken]
            ]
            packed = [(one, chain, lost) for one, chain in chains if (lost := self._lost(chain, self._has_layer))]
        for record, chain, lost in packed:
            if self._repair:
                self._unpack(record, chain)
            yield Finding(_called(record), f"its layer {lost[7:]} is not unpacked", "it is unpacked again")

    @staticmethod
    def _lost(digests: list[str], has: Callable[[str], bool]) -> str:
        """Return the first of them that is not here, "" for none."""
        return next((digest for digest in digests if not has(digest)), "")

    def _drop(self, record: Record) -> None:
        """Remove an image that has lost a blob, unless it has been pulled again meanwhile."""
        keep(self._root, [*filter(self._has_blob, record.blobs), *chain_ids(record.diff_ids)])
        with self._catalog.changing() as records:
            records[:] = [one for one in records if one.id != record.id or not self._lost(one.blobs, self._has_blob)]

    def _unpack(self, record: Record, chain: list[str]) -> None:
        """Unpack an image's layers again, unless it has been removed meanwhile."""
        with workspace(self._root, resumable=False) as job:
            job.lease((*record.blobs, *chain))
            if not self._lost(record.blobs, self._has_blob):
                layers = zip(record.blobs[2:], record.diff_ids, strict=True)
                for count, (digest, diff_id) in enumerate(layers, 1):
                    self._snapshots.unpack(self._blobs.path(digest), diff_id, chain[:count], job)

    def containers(self) -> Iterator[Finding]:
        """Look at what is left of containers that were being made, and whether others have their layers."""
        with locked(self._root):
            chains = {path: garbage.layers_of(path) for path in children(self._root / "snapshots" / "containers")}
            half = [path for path, chain in chains.items() if path.name.endswith(garbage.NEW) or chain is None]
            lost = {
                path: self._lost(garbage.kept_by(path), self._has_layer)
                for path, chain in chains.items()
                if path not in half and chain
            }
            for path in half if self._repair else ():
                garbage.discard(self._root, path)
        yield from (Finding(f"writable layer {path.name}", "it is half made", "it is removed") for path in half)
        for path, chain_id in lost.items():
            if chain_id:
                yield Finding(f"container {path.name}", f"its layer {chain_id[7:]} is not here", "")

    def jobs(self) -> Iterator[Finding]:
        """Look for what dead jobs have left."""
        for path, why in left_over(self._root):
            yield Finding(f"{path.relative_to(self._root)}", why, "it is removed")
        with locked(self._root):
            stray = list(self._root.glob("images.json.new"))
            trash = garbage.forgotten(self._root)
            for path in stray if self._repair else ():
                path.unlink()
        for path in (*stray, *trash):
            yield Finding(f"{path.relative_to(self._root)}", "whoever began with it has died", "it is removed")
        if self._repair:
            sweep(self._root)
            for path in trash:
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
        """Take something out of the store, or where nothing is to be repaired, count it as gone."""
        if not self._repair:
            self._bad.add(path.name)
            return
        with locked(self._root):
            gone = garbage.discard(self._root, path) if os.path.lexists(path) else None
        if gone:
            garbage.delete(gone)


def _wrong_with_blob(path: Path) -> str:
    """Say what is wrong with a blob, "" for nothing; one that has gone meanwhile is fine."""
    import hashlib

    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return "it is no file"
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
