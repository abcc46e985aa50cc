"""An image from a root file system: a tar archive or a directory becomes its one layer."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from minirt.errors import InvalidInput
from minirt.images.catalog import Record
from minirt.images.image import ImageConfig, Platform
from minirt.images.install import Installation, NoSource
from minirt.images.layer import pack
from minirt.images.make import make_config, make_manifest, store_layer
from minirt.images.manifest import Descriptor
from minirt.images.stream import Stream, is_compressed
from minirt.images.workspace import Workspace

PIECE_BYTES = 1 << 20


def import_rootfs(source: Path, config: ImageConfig, platform: Platform, job: Workspace) -> Record:
    """Install an image of the one layer in ``source``; return its record, without names.

    Raises:
        InvalidInput: ``source`` is neither archive nor directory, or cannot be read.
        ImageError: as installing does.
    """
    what = f"the archive {source}"
    try:
        archive = _packed(source, job) if source.is_dir() else source
        layer, diff_id = store_archive(archive, what, job)
    except OSError as error:
        why = error.strerror or str(error)
        raise InvalidInput(f"import {source}", why, "give a tar archive or a directory") from error
    made = make_config(config, platform, [diff_id], f"minirt image import {source.name}")
    return Installation(job, NoSource()).run(make_manifest(made, [layer], job), str(source))


def store_archive(archive: Path, what: str, job: Workspace) -> tuple[Descriptor, str]:
    """Store a tar archive as a layer; return its descriptor and its diff id. ``what`` names it in errors."""
    with archive.open("rb") as blob:
        diff_id = Stream(blob, what).finish()
        blob.seek(0)
        return _stored(blob, what, job), diff_id


def _packed(directory: Path, job: Workspace) -> Path:
    archive = job.path / "directory.tar"
    with archive.open("wb") as file:
        pack(directory, file, overlay=False)
    return archive


def _stored(archive: BinaryIO, what: str, job: Workspace) -> Descriptor:
    """Store an archive as a layer: as it is, if layers may be compressed like that, else with gzip."""
    is_small = is_compressed(archive.read(4))
    archive.seek(0)
    if is_small:
        return store_layer(_pieces(archive), job)
    small = job.path / "layer.tar.gz"
    _compress(Stream(archive, what), small)
    with small.open("rb") as compressed:
        return store_layer(_pieces(compressed), job)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(PIECE_BYTES), b"")


def _compress(stream: Stream, target: Path) -> None:
    from isal import igzip

    gzip = igzip.IGzipFile(target, "wb", compresslevel=1, mtime=0)  # type: ignore[no-untyped-call]
    with cast(IO[bytes], gzip) as compressed:
        for piece in stream.rest():
            compressed.write(piece)
