"""A name becomes an image: ask the registry what it stands for, choose the platform, install the manifest."""

from collections.abc import Iterator
from contextlib import AbstractContextManager

from minirt.errors import ImageError
from minirt.images import manifest
from minirt.images.catalog import Record
from minirt.images.image import Platform
from minirt.images.install import Installation
from minirt.images.manifest import Manifest
from minirt.images.progress import Report
from minirt.images.reference import Reference
from minirt.images.registry import Document, Registry
from minirt.images.workspace import Workspace

DEEPEST_INDEX = 3


class _Repository:
    """A repository of a registry, as a source of blobs."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self._name = name

    def blob(self, digest: str) -> AbstractContextManager[Iterator[bytes]]:
        return self._registry.blob(self._name, digest)

    def abort(self) -> None:
        self._registry.abort()


def pull(
    reference: Reference, platform: Platform | None, registry: Registry, job: Workspace, report: Report | None
) -> Record:
    """Install what ``reference`` names; return its record. ``platform`` None: this machine's, where there is a choice.

    Raises:
        NotFound: no such repository, tag or digest.
        ImageError: RegistryError, DigestMismatch, HostileLayer among them.
    """
    top, chosen = _resolve(reference, platform or Platform.host(), registry)
    source = _Repository(registry, reference.repository)
    record = Installation(job, source, report).run(chosen.data, str(reference), platform)
    record.names = [reference.tagged] if reference.tagged else []
    record.digests = [f"{reference.name}@{top.digest}"]
    return record


def platforms(reference: Reference, registry: Registry) -> dict[Platform, str]:
    """Return the digest of each platform's manifest; nothing where the name is not of an index.

    Raises:
        NotFound, ImageError: as ``pull`` does.
    """
    return dict(_platforms(reference, registry, reference.target, DEEPEST_INDEX))


def _platforms(reference: Reference, registry: Registry, target: str, deepest: int) -> Iterator[tuple[Platform, str]]:
    found = manifest.read(registry.manifest(reference.repository, target).data, str(reference))
    if isinstance(found, Manifest) or not deepest:
        return
    for entry in found.manifests:
        if entry.media_type in manifest.INDEXES:
            yield from _platforms(reference, registry, entry.digest, deepest - 1)
        elif (platform := manifest.platform_of(entry)) and platform.os != "unknown":
            yield platform, entry.digest


def _resolve(reference: Reference, platform: Platform, registry: Registry) -> tuple[Document, Document]:
    """Return (what the name stands for, the manifest in it for the platform): the same one without an index."""
    top = document = registry.manifest(reference.repository, reference.target)
    for _ in range(DEEPEST_INDEX):
        found = manifest.read(document.data, str(reference))
        if isinstance(found, Manifest):
            return top, document
        chosen = manifest.choose(found, platform, str(reference))
        document = registry.manifest(reference.repository, chosen.digest)
    raise ImageError(f"pull {reference}", f"its indexes are nested more than {DEEPEST_INDEX} deep", "name a manifest")
