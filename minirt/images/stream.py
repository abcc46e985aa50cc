"""A layer as a stream: decompressed, hashed as it passes, read in order and never past its end.

blob ── gzip (isal) | zstd | xz | plain, told by its first bytes ── sha256 (the diff id) ── tar
"""

import gzip
import hashlib
import os
from collections.abc import Iterator
from typing import BinaryIO, cast

from minirt.errors import HostileLayer, ImageError

PIECE_BYTES = 1 << 20
MODEST_BYTES = 1 << 30
HIGHEST_RATIO = 200
"""A layer may hold a gibibyte, or so many times of its size. Debian takes 3; gzip could reach 1032, zstd thousands."""
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
XZ_MAGIC = b"\xfd7zXZ\0"


class Stream:
    """The decompressed bytes of a layer. ``position`` counts those given out; there are at most ``most_bytes``."""

    def __init__(self, blob: BinaryIO, what: str) -> None:
        """Begin at the start of ``blob``, a seekable file; ``what`` names it in errors.

        Raises:
            ImageError: ``blob`` is too short to be anything.
        """
        self._what = what
        self.most_bytes = max(MODEST_BYTES, HIGHEST_RATIO * blob.seek(0, os.SEEK_END))
        blob.seek(0)
        self._source = _decompressed(blob)
        self._inflated = 0
        self._hash = hashlib.sha256()
        self._piece = b""
        self._at = 0
        self.position = 0

    def exactly(self, length: int) -> bytes:
        """Return the next ``length`` bytes.

        Raises:
            ImageError: the stream ends before, or is damaged.
        """
        found = self._piece[self._at : self._at + length]
        if len(found) == length:
            self._at += length
            self.position += length
            return found
        return b"".join(self.pieces(length))

    def pieces(self, length: int) -> Iterator[memoryview]:
        """Yield the next ``length`` bytes in pieces as they come. Raises ImageError as ``exactly`` does."""
        while length:
            if self._at == len(self._piece) and not self._refill():
                raise ImageError(f"read {self._what}", f"it is cut short, after {self.position} bytes", "get it again")
            piece = memoryview(self._piece)[self._at : self._at + length]
            self._at += len(piece)
            self.position += len(piece)
            length -= len(piece)
            yield piece

    def rest(self) -> Iterator[memoryview]:
        """Yield all that is left. Raises ImageError: the stream is damaged."""
        while not self.at_end():
            yield from self.pieces(len(self._piece) - self._at)

    def skip(self, length: int) -> None:
        """Pass over the next ``length`` bytes. Raises ImageError as ``exactly`` does."""
        for _ in self.pieces(length):
            pass

    def at_end(self) -> bool:
        """Say whether nothing is left."""
        return self._at == len(self._piece) and not self._refill()

    def finish(self) -> str:
        """Read to the end; return the digest of all that passed (``sha256:…``), which is the layer's diff id."""
        while self._refill():
            pass
        return f"sha256:{self._hash.hexdigest()}"

    def _refill(self) -> bool:
        try:
            self._piece = self._source.read(PIECE_BYTES)
        except Exception as error:
            if not isinstance(error, _damage()):
                raise
            raise ImageError(f"decompress {self._what}", str(error) or "it is damaged", "get it again") from error
        self._at = 0
        self._inflated += len(self._piece)
        if self._inflated > self.most_bytes:
            raise HostileLayer(
                f"decompress {self._what}", too_much(self.most_bytes), "do not trust where it comes from"
            )
        self._hash.update(self._piece)
        return bool(self._piece)


def too_much(most_bytes: int) -> str:
    """Say why a layer is not read any further."""
    return f"it holds more than {most_bytes} bytes, which is more than {HIGHEST_RATIO} times of its size"


def is_compressed(first: bytes) -> bool:
    """Say of a layer's first bytes whether it is in one of the compressions that layers may have."""
    return first.startswith((GZIP_MAGIC, ZSTD_MAGIC))


def _decompressed(blob: BinaryIO) -> BinaryIO:
    magic = blob.read(6)
    blob.seek(0)
    if magic.startswith(GZIP_MAGIC):
        from isal import igzip

        return cast(BinaryIO, igzip.IGzipFile(fileobj=blob, mode="rb"))  # type: ignore[no-untyped-call]
    if magic.startswith(ZSTD_MAGIC):
        import zstandard

        return cast(BinaryIO, zstandard.ZstdDecompressor().stream_reader(blob, read_across_frames=True))
    if magic.startswith(XZ_MAGIC):
        import lzma

        return cast(BinaryIO, lzma.LZMAFile(blob))
    return blob


def _damage() -> tuple[type[Exception], ...]:
    """Return what the decompressors raise for damaged data; imported only when something has gone wrong."""
    import lzma

    import zstandard
    from isal import isal_zlib

    return EOFError, lzma.LZMAError, gzip.BadGzipFile, cast(type[Exception], isal_zlib.error), zstandard.ZstdError
