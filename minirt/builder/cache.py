"""What an instruction has made before: found by everything that decides what it makes.

<data root>/build-cache.json: {key: {"created": …, "layer": descriptor, "diff_id": …}}; settings make no layer

A key is the digest of the key before it and of the instruction with what it takes in: files by their content, arguments
by their values. An entry whose blob has been collected is no entry; it goes when the file is next written.
"""

import hashlib
from pathlib import Path

import msgspec
from msgspec import Struct

from minirt import decoding
from minirt.images import disk
from minirt.images.blobs import Blobs
from minirt.images.layer import Layer
from minirt.images.workspace import Workspace

VERSION = 1
MOST_ENTRIES = 10_000


class Made(Struct):
    """What an instruction made, and when (RFC 3339)."""

    created: str
    layer: Layer | None = None


class _File(Struct):
    entries: dict[str, Made] = {}
    version: int = VERSION


def key(*parts: str) -> str:
    """Return the digest of some texts."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


class Cache:
    """The layers that builds have made in one store."""

    def __init__(self, root: Path) -> None:
        self._path = root / "build-cache.json"
        self._lock = root / "build-cache.lock"
        self._blobs = Blobs(root)

    def get(self, wanted: str, job: Workspace) -> Made | None:
        """Return what a key has made; from now on ``job`` holds it."""
        found = self._read().entries.get(wanted)
        if found and found.layer:
            job.lease([found.layer.descriptor.digest])
            return found if self._is_whole(found) else None
        return found

    def put(self, key: str, made: Made) -> None:
        """Remember what a key has made."""
        with disk.flocked(self._lock):
            kept = {one: entry for one, entry in self._read().entries.items() if self._is_whole(entry)}
            newest = [*kept.items(), (key, made)][-MOST_ENTRIES:]
            disk.replace(self._path, msgspec.json.encode(_File(dict(newest))))

    def _is_whole(self, entry: Made) -> bool:
        return entry.layer is None or self._blobs.has(entry.layer.descriptor.digest)

    def _read(self) -> _File:
        """Return what the file holds; of a damaged one, or of another version, nothing: it is a cache."""
        try:
            found = decoding.from_json(self._path.read_bytes(), _File)
        except (FileNotFoundError, msgspec.DecodeError):
            return _File()
        return found if found.version == VERSION else _File()
