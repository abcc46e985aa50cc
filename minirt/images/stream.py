"""A layer as a stream: decompressed, hashed as it passes, read in order and never past its end.

blob ── gzip (isal) | zstd | plain, told by its first bytes ── sha256 (the diff id) ── tar
"""

import gzip
import hashlib
from collections.abc import Iterator
from typing import BinaryIO

from minirt.errors import ImageError

PIECE_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Stream:
    """The decompressed bytes of a layer. ``position`` counts those given out, in bytes."""

    def __init__(self, blob: BinaryIO, what: str) -> None:
        """Begin at the start of ``blob``, a seekable file; ``what`` names it in errors.

        Raises:
            ImageError: ``blob`` is too short to be anything.
        """
        self._what = what
        self._source = _decompressed(blob)
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
        except (EOFError, *_damage()) as error:
            raise ImageError(f"decompress {self._what}", str(error) or "it is damaged", "get it again") from error
        self._at = 0
        self._hash.update(self._piece)
        return bool(self._piece)


def _decompressed(blob: BinaryIO) -> BinaryIO:
    magic = blob.read(4)
    blob.seek(0)
    if magic.startswith(GZIP_MAGIC):
        from isal import igzip

        return igzip.open(blob, "rb")  # type: ignore[no-any-return]
    if magic == ZSTD_MAGIC:
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(blob, read_across_frames=True)  # type: ignore[return-value]
    return blob


def _damage() -> tuple[type[Exception], ...]:
    """Return what the decompressors raise for damaged data; imported only when something has gone wrong."""
    import zstandard
    from isal import isal_zlib

    return gzip.BadGzipFile, isal_zlib.error, zstandard.ZstdError
