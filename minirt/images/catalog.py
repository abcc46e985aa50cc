"""Which images there are, and what they are called: ``images.json``, small, replaced whole, changed under one lock.

Readers take no lock: they see the catalogue before a change or after it.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from minirt import decoding
from minirt.errors import ImageError
from minirt.images import disk
from minirt.images.workspace import locked

VERSION = 1


class Record(Struct):
    """One image: ``id`` is its config's digest, ``blobs`` are its manifest, config and layers, all by digest."""

    id: str
    manifest: str
    blobs: list[str]
    diff_ids: list[str]
    size_bytes: int
    names: list[str] = []
    digests: list[str] = []


class _File(Struct):
    images: list[Record] = []
    version: int = VERSION


class Catalog:
    """The catalogue of one store."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / "images.json"

    def records(self) -> list[Record]:
        """Return every image's record. Raises ImageError: the file is damaged, or a later version's."""
        try:
            found = decoding.from_json(self._path.read_bytes(), _File)
        except FileNotFoundError:
            return []
        except msgspec.DecodeError as error:
            raise ImageError(f"read {self._path}", str(error), "see minirt image fsck") from error
        if found.version != VERSION:
            raise ImageError(f"read {self._path}", f"it is of version {found.version}", "use the minirt that wrote it")
        return found.images

    def begin_anew(self, records: list[Record]) -> None:
        """Set the file aside as ``images.json.damaged``, and write these. Hold the store's lock.

        There is an index at any time: without one all would be garbage.
        """
        aside = self._path.with_name(f"{self._path.name}.damaged")
        aside.unlink(missing_ok=True)
        aside.hardlink_to(self._path)
        self._write(records)

    def _write(self, records: list[Record]) -> None:
        disk.replace(self._path, msgspec.json.format(msgspec.json.encode(_File(records)), indent=1))

    @contextlib.contextmanager
    def changing(self) -> Iterator[list[Record]]:
        """Hold the store's lock, and write the list back when the block changed it and did not raise."""
        with locked(self._root):
            records = self.records()
            before = msgspec.json.encode(records)
            yield records
            if msgspec.json.encode(records) != before:
                self._write(records)


def put(records: list[Record], new: Record) -> None:
    """Add an image; its names and digests leave the images that had them, and it keeps those it had itself."""
    for record in records:
        record.names = [name for name in record.names if name not in new.names]
    old = next((record for record in records if record.id == new.id), None)
    if old:
        new.names = [*old.names, *new.names]
        new.digests = [*old.digests, *(digest for digest in new.digests if digest not in old.digests)]
        records.remove(old)
    records.append(new)
