"""Content by its digest: ``blobs/sha256/<hex>``, written once, whole and verified, as in an OCI image layout."""

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from minirt.errors import DigestMismatch, ImageError, Unsupported
from minirt.images import disk
from minirt.images.workspace import REMEDIES, Workspace

DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
LARGEST_DOCUMENT = 4 << 20
"""Manifests and configs are small, in bytes; the distribution spec asks registries to take as much."""


def digest_of(data: bytes) -> str:
    """Return ``sha256:<hex>`` of data."""
    import hashlib

    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def hex_of(digest: str) -> str:
    """Return the hexadecimal digits of a digest, which are safe as a file's name.

    Raises:
        Unsupported: it is not sha256, or no digest at all.
    """
    match = DIGEST.fullmatch(digest)
    if not match:
        raise Unsupported(f"use the digest {digest[:80]!r}", "only sha256 is understood")
    return match[1]


class Blobs:
    """The blobs of one store."""

    def __init__(self, root: Path) -> None:
        self._top = root / "blobs" / "sha256"

    def path(self, digest: str) -> Path:
        """Return where a blob is, or would be."""
        return self._top / hex_of(digest)

    def has(self, digest: str) -> bool:
        """Say whether a blob is here, which means: all of it, verified."""
        return self.path(digest).exists()

    def touch(self, digest: str) -> None:
        """Note that a blob is used now: of an image's config this is when the image was used last."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path(digest))

    def used_at(self, digest: str) -> float:
        """Return when a blob was used last, in seconds since 1970; 0 where it is not here."""
        try:
            return self.path(digest).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def read(self, digest: str) -> bytes:
        """Return a document. Raises ImageError: it is missing, or too large to be one."""
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError as error:
            raise ImageError(f"read blob {digest}", "it is not in the store", "pull or load the image again") from error
        if len(data) > LARGEST_DOCUMENT:
            raise ImageError(f"read blob {digest}", f"{len(data)} bytes are too many for a document")
        return data

    def add(self, data: bytes, job: Workspace) -> str:
        """Store a document; return its digest."""
        digest = digest_of(data)
        self.write([data], job, digest, len(data))
        return digest

    def write(self, pieces: Iterable[bytes], job: Workspace, digest: str = "", size: int = -1) -> tuple[str, int]:
        """Store a blob as it streams in; return its digest and its size in bytes.

        ``digest`` and ``size`` are what it must be, where that is known before.

        Raises:
            DigestMismatch: it is not what was promised; nothing is stored.
            ImageError: it cannot be written (disk full).
        """
        new = job.path / f"blob-{os.urandom(8).hex()}"
        try:
            found, length = self._stream(pieces, new, size)
            if (digest and found != digest) or size not in (-1, length):
                why = f"{length} bytes with the digest {found} came"
                raise DigestMismatch(f"store blob {digest} of {size} bytes", why, "try again; or the source is damaged")
            if found not in job.leased:
                job.lease([found])
            self._top.mkdir(mode=0o755, parents=True, exist_ok=True)
            disk.move(new, self.path(found))
        except OSError as error:
            why = f"{error.strerror} on {self._top}"
            raise ImageError(f"store blob {digest}", why, REMEDIES.get(error.errno or 0, "")) from error
        finally:
            new.unlink(missing_ok=True)
        return found, length

    @staticmethod
    def _stream(pieces: Iterable[bytes], new: Path, size: int) -> tuple[str, int]:
        """Write to a new file and to the disk, no further than one piece beyond ``size``."""
        import hashlib

        seen, length = hashlib.sha256(), 0
        with new.open("xb") as file:
            for piece in pieces:
                seen.update(piece)
                length += len(piece)
                file.write(piece)
                if 0 <= size < length:
                    break
            file.flush()
            os.fsync(file.fileno())
        return f"sha256:{seen.hexdigest()}", length
