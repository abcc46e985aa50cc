"""Images in files: docker archives, OCI archives and OCI layout directories.

    docker archive      manifest.json [{Config, RepoTags, Layers}] ─▶ paths in the archive
    OCI layout          index.json ─▶ blobs/sha256/<hex>; names are annotations; in a directory or a tar archive

What ``save`` writes is both, over the same blobs, so that skopeo, podman and any docker read it.

Source: image-spec image-layout.md; moby's image/spec/spec.md, "Combined Image JSON + Filesystem Changeset Format"
"""

import contextlib
import io
import os
import tarfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from minirt.errors import ImageError, InvalidInput
from minirt.images import manifest
from minirt.images.blobs import LARGEST_DOCUMENT, Blobs, hex_of
from minirt.images.catalog import Record
from minirt.images.image import Platform
from minirt.images.install import Installation, NoSource
from minirt.images.make import make_manifest, store_layer
from minirt.images.manifest import Descriptor, Index
from minirt.images.progress import Report
from minirt.images.reference import Reference
from minirt.images.workspace import Workspace

PIECE_BYTES = 1 << 20
CONTAINERD_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"


class _DockerImage(Struct, rename="pascal"):
    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


class _Files:
    """The files of a tar archive or of a directory. An archive has one position: one reader at a time."""

    def __init__(self, top: tarfile.TarFile | Path) -> None:
        self._top = top
        members = top.getmembers() if isinstance(top, tarfile.TarFile) else []
        self._members = {member.name.removeprefix("./"): member for member in members}
        self._reading = threading.Lock()

    @contextlib.contextmanager
    def pieces(self, path: str) -> Iterator[Iterator[bytes]]:
        """Open a file; the block gets its bytes in pieces. Raises ImageError: there is none, or it is damaged."""
        with self._reading, self._open(path) as file:
            yield self._read(file, path)

    def has(self, path: str) -> bool:
        """Say whether there is such a file."""
        if isinstance(self._top, Path):
            return (self._top / path).exists()
        return path in self._members

    def document(self, path: str) -> bytes:
        """Return a small file. Raises ImageError: there is none, it is damaged, or not small."""
        with self.pieces(path) as pieces:
            data = next(pieces, b"")
            while len(data) <= LARGEST_DOCUMENT and (piece := next(pieces, b"")):
                data += piece
        if len(data) > LARGEST_DOCUMENT:
            raise ImageError(f"load {path}", f"it is longer than {LARGEST_DOCUMENT} bytes")
        return data

    def _open(self, path: str) -> IO[bytes]:
        found: IO[bytes] | None = None
        with contextlib.suppress(KeyError, FileNotFoundError):
            if isinstance(self._top, Path):
                found = (self._top / path).open("rb")
            else:
                found = self._top.extractfile(self._members[path])
        if found is None:
            raise ImageError(f"load {path}", "the archive has no such file", "have it made anew")
        return found

    @staticmethod
    def _read(file: IO[bytes], path: str) -> Iterator[bytes]:
        try:
            while piece := file.read(PIECE_BYTES):
                yield piece
        except (EOFError, zlib.error, OSError, tarfile.TarError) as error:
            raise ImageError(f"load {path}", f"the archive is damaged there: {error}", "get it again") from error


class _Layout:
    """The blobs of an OCI layout, as a source."""

    def __init__(self, files: _Files) -> None:
        self._files = files

    def blob(self, digest: str) -> AbstractContextManager[Iterator[bytes]]:
        return self._files.pieces(f"blobs/sha256/{hex_of(digest)}")

    def abort(self) -> None:
        """Do nothing: files keep no reader waiting."""


def load(archive: Path, job: Workspace, report: Report | None) -> list[Record]:
    """Install every image of an archive or a layout directory; return their records.

    Raises:
        InvalidInput: it is neither. ImageError: something in it is missing or damaged.
    """
    with _opened(archive) as files:
        if files.has("index.json"):
            return list(_load_oci(files, archive, job, report))
        if not archive.is_dir() and files.has("manifest.json"):
            return list(_load_docker(files, archive, job, report))
    why = "it has neither a manifest.json (docker) nor an index.json (OCI)"
    raise InvalidInput(f"load {archive}", why, "a root file system is imported: see minirt image import")


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[_Files]:
    if archive.is_dir():
        yield _Files(archive)
        return
    with contextlib.ExitStack() as opened:
        try:
            files = _Files(opened.enter_context(tarfile.open(archive, "r:*")))
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            do = "see docker save, skopeo copy, minirt image save"
            raise InvalidInput(f"load {archive}", str(error), do) from error
        yield files


def _load_docker(files: _Files, archive: Path, job: Workspace, report: Report | None) -> Iterator[Record]:
    stored: dict[str, Descriptor] = {}
    for image in manifest.decode(files.document("manifest.json"), list[_DockerImage], str(archive)):
        config = files.document(image.config)
        for path in image.layers:
            if path not in stored:
                with files.pieces(path) as pieces:
                    stored[path] = store_layer(pieces, job)
        data = make_manifest(config, [stored[path] for path in image.layers], job)
        record = Installation(job, NoSource(), report).run(data, str(archive))
        record.names = [str(Reference.parse(tag)) for tag in image.repo_tags or ()]
        yield record


def _load_oci(files: _Files, archive: Path, job: Workspace, report: Report | None) -> Iterator[Record]:
    index = manifest.read(files.document("index.json"), str(archive))
    if not isinstance(index, Index):
        raise ImageError(f"load {archive}", "its index.json is no index", "have it made anew")
    for entry in index.manifests:
        data = files.document(f"blobs/sha256/{hex_of(entry.digest)}")
        if isinstance(nested := manifest.read(data, str(archive)), Index):
            chosen = manifest.choose(nested, Platform.host(), str(archive))
            data = files.document(f"blobs/sha256/{hex_of(chosen.digest)}")
        record = Installation(job, _Layout(files), report).run(data, str(archive))
        record.names = _names(entry.annotations or {}, archive)
        yield record


def _names(annotations: dict[str, str], archive: Path) -> list[str]:
    """Return the name an index's entry gives its image; a bare tag is one of localhost/<the archive's name>."""
    name = annotations.get(CONTAINERD_NAME) or annotations.get(REF_NAME, "")
    if name and "/" not in name and ":" not in name:
        name = f"localhost/{archive.name.partition('.')[0].lower()}:{name}"
    return [str(Reference.parse(name))] if name else []


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[IO[bytes]]:
    """Open a file to write; it is at ``target`` when the block has ended without an error, and else nothing is.

    Raises:
        ImageError: it cannot be written.
    """
    new = target.with_name(f".{target.name}.new")
    try:
        with new.open("wb") as file:
            yield file
        new.replace(target)
    except OSError as error:
        raise ImageError(f"write {target}", error.strerror or str(error), "name another file") from error
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)


def save(blobs: Blobs, images: list[tuple[Record, list[str]]], target: IO[bytes]) -> None:
    """Write images, each under these names, to ``target``, which need not be seekable. What they share is in it once.

    Raises:
        ImageError: a blob is missing. OSError: ``target`` cannot be written.
    """
    digests = list(dict.fromkeys(digest for record, _ in images for digest in record.blobs))
    if missing := [digest for digest in digests if not blobs.has(digest)]:
        raise ImageError("save the image", f"its blob {missing[0]} is not in the store", "see minirt image fsck")
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        for path, content in _documents(blobs, images).items():
            _add(tar, path, io.BytesIO(content), len(content))
        for digest in digests:
            with blobs.path(digest).open("rb") as blob:
                _add(tar, f"blobs/sha256/{hex_of(digest)}", blob, os.fstat(blob.fileno()).st_size)


def _documents(blobs: Blobs, images: list[tuple[Record, list[str]]]) -> dict[str, bytes]:
    entries: list[Descriptor] = []
    docker: list[_DockerImage] = []
    for record, names in images:
        data = blobs.read(record.manifest)
        entry = Descriptor(manifest.read(data, record.id).media_type, record.manifest, len(data))
        entries += [msgspec.structs.replace(entry, annotations=_annotations(name)) for name in names] or [entry]
        layers = [f"blobs/sha256/{hex_of(digest)}" for digest in record.blobs[2:]]
        docker.append(_DockerImage(f"blobs/sha256/{hex_of(record.id)}", layers, names))
    return {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": msgspec.json.encode(Index(entries)),
        "manifest.json": msgspec.json.encode(docker),
    }


def _annotations(name: str) -> dict[str, str]:
    return {CONTAINERD_NAME: name, REF_NAME: Reference.parse(name).target}


def _add(tar: tarfile.TarFile, path: str, content: IO[bytes], size: int) -> None:
    info = tarfile.TarInfo(path)
    info.size, info.mode = size, 0o644
    tar.addfile(info, content)
