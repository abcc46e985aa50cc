"""An image from a root file system: a tar archive or a directory becomes its one layer."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from minirt.errors import InvalidInput
from minirt.images.catalog import Record
from minirt.images.image import ImageConfig, Platform
from minirt.images.install import Installation, NoSource
from minirt.images.make import make_config, make_manifest, store_layer
from minirt.images.manifest import Descriptor
from minirt.images.stream import Stream, is_compressed
from minirt.images.tar import XATTR
from minirt.images.tree import NOT_OURS_TO_SET
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
        with archive.open("rb") as blob:
            diff_id = Stream(blob, what).finish()
            blob.seek(0)
            layer = _stored(blob, what, job)
    except OSError as error:
        why = error.strerror or str(error)
        raise InvalidInput(f"import {source}", why, "give a tar archive or a directory") from error
    made = make_config(config, platform, [diff_id], f"minirt image import {source.name}")
    return Installation(job, NoSource()).run(make_manifest(made, [layer], job), str(source))


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


def _packed(directory: Path, job: Workspace) -> Path:
    """Return a tar archive of a directory's content, in the order of its names."""
    archive = job.path / "directory.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, directory, ".")
        for where, directories, files in os.walk(directory):
            directories.sort()
            for name in sorted((*directories, *files)):
                path = Path(where, name)
                _add(tar, path, str(path.relative_to(directory)))
    return archive


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """Add one file with its xattrs and its time to the nanosecond. Sockets are left out: tar has none."""
    info = cast("tarfile.TarInfo | None", tar.gettarinfo(path, name))
    if info is None:
        return
    seconds, nanoseconds = divmod(os.lstat(path).st_mtime_ns, 10**9)
    headers = {"mtime": f"{seconds}.{nanoseconds:09}"}
    for key in os.listxattr(path, follow_symlinks=False):
        if not key.startswith(NOT_OURS_TO_SET):
            value = os.getxattr(path, key, follow_symlinks=False)
            headers[XATTR + key] = value.decode(errors="surrogateescape")
    info.pax_headers, info.uname, info.gname = headers, "", ""
    if info.isreg():
        with path.open("rb") as content:
            tar.addfile(info, content)
    else:
        tar.addfile(info)
