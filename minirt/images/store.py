"""The image store: the one door to images for the rest of minirt.

<data root>/
    images.json               which images there are, and their names
    blobs/sha256/<hex>        manifests, configs, layers as they came
    snapshots/                layers unpacked, and containers' writable ones (snapshots.py)
    tmp/  trash/              jobs at work (workspace.py); what is about to be deleted (garbage.py)
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from minirt import paths
from minirt.errors import Conflict, ImageError, InvalidInput, NotFound
from minirt.images import catalog, garbage, manifest
from minirt.images.blobs import Blobs
from minirt.images.catalog import Catalog, Record
from minirt.images.image import Image, ImageConfig, Platform
from minirt.images.progress import Progress, Report
from minirt.images.reference import Reference
from minirt.images.snapshots import Overlay, Snapshots
from minirt.images.workspace import Workspace, workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

    from minirt.images.commit import Commit, Pausing
    from minirt.images.credentials import Credentials
    from minirt.images.history import Step
    from minirt.images.manifest import Descriptor

    Descriptors = list[Descriptor]

__all__ = ["Image", "ImageConfig", "ImageStore", "Overlay", "Platform", "Progress", "Reference", "Snapshots"]

Images = list[Image]
Lines = list[str]
Steps = list["Step"]
_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")


class ImageStore:
    """The images under one data root. Any number of processes may use it at once."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or paths.data_root()
        self._catalog = Catalog(self.root)
        self._blobs = Blobs(self.root)

    def pull(
        self,
        name: str,
        *,
        platform: str | None = None,
        plain_http: bool | None = None,
        credentials: "Credentials | None" = None,
        progress: Report | None = None,
    ) -> Image:
        """Fetch an image from its registry, unpack it, and give it its name.

        ``plain_http`` None means: only to a loopback address; ``credentials`` None: those of the user's files.
        ``progress`` may be called from other threads, one call at a time.

        Raises:
            InvalidInput: ``name`` or ``platform`` is none.
            NotFound: the registry has no such repository or tag.
            ImageError: RegistryError, DigestMismatch, HostileLayer, disk full.
        """
        from minirt.images.pull import pull
        from minirt.images.registry import Registry

        reference = Reference.parse(name)
        wanted = Platform.parse(platform) if platform else None
        registry = Registry(reference.registry, plain_http=plain_http, credentials=credentials)
        try:
            with workspace(self.root) as job:
                return self._record(pull(reference, wanted, registry, job, progress))
        finally:
            registry.close()

    def pull_others(self, name: str, *, plain_http: bool | None = None, progress: Report | None = None) -> Images:
        """Fetch the images that an index has for other platforms than this machine's; each is known by its digest.

        Raises:
            InvalidInput, NotFound, ImageError: as ``pull`` does.
        """
        from minirt.images.pull import platforms
        from minirt.images.registry import Registry

        reference = Reference.parse(name)
        registry = Registry(reference.registry, plain_http=plain_http)
        try:
            found = platforms(reference, registry)
        finally:
            registry.close()
        others = [digest for platform, digest in found.items() if not Platform.host().runs(platform)]
        return [self.pull(f"{reference.name}@{digest}", plain_http=plain_http, progress=progress) for digest in others]

    def push(
        self,
        name: str,
        target: str = "",
        *,
        plain_http: bool | None = None,
        credentials: "Credentials | None" = None,
        progress: Report | None = None,
    ) -> str:
        """Give an image to the registry of its name, or of ``target``; return its manifest's digest there.

        Raises:
            NotFound: there is no such image.
            InvalidInput: ``target`` is no name, or has a digest.
            ImageError: RegistryError; a blob is missing.
        """
        from minirt.images.push import push
        from minirt.images.registry import Registry

        record, _ = _find(self._catalog.records(), name)
        reference = _taggable(target or name)
        registry = Registry(reference.registry, plain_http=plain_http, credentials=credentials)
        try:
            return push(self._blobs, record.manifest, reference, registry, [*record.digests, *record.names], progress)
        finally:
            registry.close()

    def get(self, name_or_id: str) -> Image:
        """Return an image by its name, its id, or the unique beginning of its id.

        Raises:
            NotFound: there is none.
            Conflict: more than one id begins like this.
            InvalidInput: it is neither a name nor an id.
        """
        while True:
            record, _ = _find(self._catalog.records(), name_or_id)
            if image := self._image_unless_gone(record):
                return image

    def list(self) -> Images:
        """Return all images, in the order they came."""
        found = map(self._image_unless_gone, self._catalog.records())
        return [image for image in found if image]

    def remove(self, name_or_id: str, *, force: bool = False) -> Lines:
        """Take away one name of an image; with its last name, by its id, or with ``force``, the image itself.

        Return what went as docker says it: ``Untagged: name``, ``Deleted: digest``. Layers that a container or
        another image stands on stay.

        Raises:
            NotFound: there is no such image.
            Conflict: given by id, and it has several names; a container stands on it.
        """
        with self._catalog.changing() as records:
            record, name = _find(records, name_or_id)
            gone = _untag(record, name, force=force)
            if not record.names:
                users = [] if force else Snapshots(self.root).of_image(record.id)
                if users:
                    do = "remove it first, or remove the image by force: its layers stay for as long as they are needed"
                    raise Conflict(f"remove image {name_or_id}", f"container {users[0][:12]} stands on it", do)
                records.remove(record)
        return [f"Untagged: {one}" for one in gone] + [f"Deleted: {one}" for one in garbage.collect(self.root)]

    def tag(self, name_or_id: str, name: str) -> None:
        """Give an image another name; who had it loses it.

        Raises:
            NotFound, Conflict: as ``get``. InvalidInput: ``name`` is none, or has a digest.
        """
        reference = _taggable(name)
        with self._catalog.changing() as records:
            record, _ = _find(records, name_or_id)
            catalog.put(records, msgspec.structs.replace(record, names=[str(reference)]))

    def history(self, name_or_id: str) -> Steps:
        """Return the steps by which an image was made, the last one first. Raises as ``get`` does."""
        from minirt.images.history import steps

        return steps(self.root, _find(self._catalog.records(), name_or_id)[0])

    def import_rootfs(
        self, source: Path, name: str, *, config: ImageConfig | None = None, platform: str | None = None
    ) -> Image:
        """Make an image of one layer from a tar archive (compressed or not) or a directory.

        Raises:
            InvalidInput: ``source`` is neither, or cannot be read; ``name`` is none, or has a digest.
            ImageError: HostileLayer, disk full.
        """
        from minirt.images.rootfs import import_rootfs

        reference = _taggable(name)
        wanted = Platform.parse(platform) if platform else Platform.host()
        with workspace(self.root, resumable=False) as job:
            record = import_rootfs(source, config or ImageConfig(), wanted, job)
            record.names = [str(reference)]
            return self._record(record)

    def commit(
        self,
        image_id: str,
        overlay: Overlay,
        without: "Callable[[str], bool]",
        what: "Commit",
        name: str = "",
        paused: "Pausing | None" = None,
    ) -> Image:
        """Make an image of an image and what a container has changed of it; "" is no name.

        ``paused`` is what nothing is to change in while it is read.

        Raises:
            NotFound: there is no such image. InvalidInput: ``name`` is none. ImageError: disk full.
        """
        from minirt.images.commit import commit

        names = [str(_taggable(name))] if name else []
        base, _ = _find(self._catalog.records(), image_id)
        with workspace(self.root, resumable=False) as job:
            job.lease(base.blobs)
            record = commit(base, overlay, without, what, job, paused)
            record.names = names
            return self._record(record)

    def add(self, config: bytes, layers: "Descriptors", names: Lines, job: Workspace) -> Image:
        """Make an image of a config and layers that ``job`` has stored.

        Raises:
            InvalidInput: one of ``names`` is none, or has a digest. ImageError: config and layers do not fit.
        """
        from minirt.images.install import Installation, NoSource
        from minirt.images.make import make_manifest

        tagged = [str(_taggable(name)) for name in names]
        record = Installation(job, NoSource()).run(make_manifest(config, layers, job), tagged[0] if tagged else "it")
        record.names = tagged
        return self._record(record)

    def layers(self, name_or_id: str) -> "Descriptors":
        """Return the layers of an image as they are stored, the bottom one first. Raises as ``get`` does."""
        record, _ = _find(self._catalog.records(), name_or_id)
        found = manifest.read(self._blobs.read(record.manifest), record.id)
        return found.layers if isinstance(found, manifest.Manifest) else []

    def load(self, archive: Path, *, progress: Report | None = None) -> Images:
        """Add the images of a docker archive, an OCI archive, or an OCI layout directory.

        Raises:
            InvalidInput: it is none of these.
            ImageError: DigestMismatch, HostileLayer, disk full.
        """
        from minirt.images.archive import load

        with workspace(self.root) as job:
            return [self._record(record) for record in load(archive, job, progress)]

    def load_stream(self, archive: "IO[bytes]", *, progress: Report | None = None) -> Images:
        """Add the images of an archive that is read once, from its beginning to its end. Raises as ``load`` does."""
        import shutil

        from minirt.images.archive import load

        with workspace(self.root) as job:
            spooled = job.path / "stdin"
            with spooled.open("wb") as file:
                shutil.copyfileobj(archive, file, 1 << 20)
            return [self._record(record) for record in load(spooled, job, progress)]

    def save(self, names: "Sequence[str]", target: "IO[bytes]") -> None:
        """Write images to ``target`` as one archive, which is a docker archive and an OCI archive at once.

        Raises:
            NotFound: there is no such image.
            ImageError: a blob is missing. OSError: ``target`` cannot be written.
        """
        from minirt.images.archive import save

        records = self._catalog.records()
        found: dict[str, tuple[Record, list[str]]] = {}
        for record, name in (_find(records, one) for one in names):
            wanted = found.setdefault(record.id, (record, []))[1]
            wanted += [one for one in ([name] if name else record.names) if one not in wanted]
        save(self._blobs, list(found.values()), target)

    def _record(self, record: Record) -> Image:
        with self._catalog.changing() as records:
            catalog.put(records, record)
        return self._image(record)

    def _image_unless_gone(self, record: Record) -> Image | None:
        """Return an image; None where it was removed since its record was read, for nothing is locked meanwhile."""
        try:
            return self._image(record)
        except ImageError:
            if any(one.id == record.id for one in self._catalog.records()):
                raise
            return None

    def _image(self, record: Record) -> Image:
        config = manifest.read_config(self._blobs.read(record.id), record.id)
        return Image(
            id=record.id,
            names=tuple(record.names),
            digests=tuple(record.digests),
            size_bytes=record.size_bytes,
            config=config.run_config(),
            created=config.created or "",
            platform=config.platform,
            diff_ids=tuple(record.diff_ids),
        )


def _find(records: list[Record], text: str) -> tuple[Record, str | None]:
    """Return the image that ``text`` means, and its name if it was found by that."""
    is_id = _ID.fullmatch(text)
    try:
        reference = Reference.parse(text)
    except InvalidInput:
        if not is_id:
            raise
    else:
        if found := _by_name(records, reference):
            return found
    begun = [record for record in records if is_id and record.id.startswith(f"sha256:{is_id[1]}")]
    if len(begun) > 1:
        raise Conflict(f"use image {text}", f"{len(begun)} image ids begin like this", "give more of the id")
    if not begun:
        raise NotFound(f"use image {text}", "it is not in the store", f"minirt image pull {text}")
    return begun[0], None


def _by_name(records: list[Record], reference: Reference) -> tuple[Record, str | None] | None:
    for record in records:
        if reference.digest and f"{reference.name}@{reference.digest}" in record.digests:
            return record, None
        if not reference.digest and reference.tagged in record.names:
            return record, reference.tagged
    return None


def _untag(record: Record, name: str | None, *, force: bool) -> list[str]:
    """Take one name, or with ``name`` None all of them, from a record; return what was taken."""
    if name is None and len(record.names) > 1 and not force:
        do = "remove it by its names, or by force"
        raise Conflict(f"remove image {record.id[7:19]}", f"it has {len(record.names)} names", do)
    gone = list(record.names) if name is None or force else [name]
    record.names = [one for one in record.names if one not in gone]
    return gone


def _taggable(name: str) -> Reference:
    reference = Reference.parse(name)
    if reference.digest:
        raise InvalidInput(
            f"name an image {name}", "a digest cannot be given, it is what the content is", "leave it out"
        )
    return reference
