"""The JSON documents an image is made of, OCI's and docker's alike: index ─▶ manifest ─▶ config and layers.

What is not an image that can be run is refused by name: docker's schema 1, artifacts, encrypted layers.

Source: image-spec index.md, manifest.md, config.md; distribution's manifest-v2-2.md
"""

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Struct

from minirt import decoding
from minirt.errors import ImageError, Unsupported
from minirt.images.image import ImageConfig, Platform

T = TypeVar("T")

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
INDEXES = (OCI_INDEX, DOCKER_INDEX)
READABLE = (OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST)
_LAYERS = (OCI_LAYER, DOCKER_LAYER, "application/vnd.oci.image.layer.nondistributable.v1.tar")


class PlatformField(Struct):
    """The platform of an index's entry."""

    os: str = ""
    architecture: str = ""
    variant: str = ""


class Descriptor(Struct, rename="camel", omit_defaults=True):
    """A pointer to content: what it is, its digest, its size in bytes."""

    media_type: str
    digest: str
    size: Annotated[int, msgspec.Meta(ge=0)]
    platform: PlatformField | None = None
    annotations: dict[str, str] | None = None
    artifact_type: str = ""


class Manifest(Struct, rename="camel"):
    """One image for one platform."""

    config: Descriptor
    layers: list[Descriptor]
    schema_version: int = 2
    media_type: str = OCI_MANIFEST


class Index(Struct, rename="camel"):
    """Manifests to choose from."""

    manifests: list[Descriptor]
    schema_version: int = 2
    media_type: str = OCI_INDEX


class RunConfig(Struct, rename="pascal", omit_defaults=True):
    """How to run an image, as its config says it."""

    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    env: list[str] | None = None
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    exposed_ports: dict[str, Any] | None = None
    volumes: dict[str, Any] | None = None
    labels: dict[str, str] | None = None


class RootFs(Struct):
    """The digests of the unpacked layers, the bottom one first."""

    diff_ids: list[str]
    type: str = "layers"


class ConfigFile(Struct, omit_defaults=True):
    """The image's own config: how to run it, and what its layers are once unpacked."""

    rootfs: RootFs
    architecture: str = ""
    os: str = ""
    variant: str = ""
    created: str | None = None
    config: RunConfig | None = None
    history: list[dict[str, Any]] | None = None

    @property
    def platform(self) -> Platform:
        """Return what the image runs on."""
        return Platform(self.os, self.architecture, self.variant)

    def run_config(self) -> ImageConfig:
        """Return how to run it, with nothing left null."""
        run = self.config or RunConfig()
        return ImageConfig(
            entrypoint=tuple(run.entrypoint or ()),
            cmd=tuple(run.cmd or ()),
            env=tuple(run.env or ()),
            user=run.user,
            working_dir=run.working_dir,
            stop_signal=run.stop_signal,
            exposed_ports=tuple(run.exposed_ports or ()),
            volumes=tuple(run.volumes or ()),
            labels=run.labels or {},
        )


class _Any(Struct, rename="camel"):
    """What tells the documents apart."""

    media_type: str = ""
    schema_version: int = 0
    manifests: msgspec.Raw = msgspec.Raw()
    config: msgspec.Raw = msgspec.Raw()


def read(data: bytes, what: str) -> Manifest | Index:
    """Return the index or manifest in ``data``; ``what`` names it in errors.

    Raises:
        Unsupported: it is of docker's schema 1, an artifact, or encrypted.
        ImageError: it is neither index nor manifest.
    """
    kind = decode(data, _Any, what)
    if kind.schema_version == 1:
        raise Unsupported(f"read {what}", "it is of docker's schema 1", "push the image anew with a newer tool")
    if kind.manifests:
        return decode(data, Index, what)
    if not kind.config:
        raise ImageError(f"read {what}", f"it is neither an index nor a manifest ({kind.media_type or 'no mediaType'})")
    return _image_only(decode(data, Manifest, what), what)


def _image_only(manifest: Manifest, what: str) -> Manifest:
    kind = manifest.config.media_type
    if kind not in (OCI_CONFIG, DOCKER_CONFIG):
        raise Unsupported(f"read {what}", f"it is an artifact ({kind}), not an image", "name an image")
    for layer in manifest.layers:
        if not layer.media_type.startswith(_LAYERS):
            raise Unsupported(f"read {what}", f"layer {layer.digest[:19]} is {layer.media_type}", "name an image")
        if layer.media_type.endswith("+encrypted"):
            raise Unsupported(f"read {what}", f"layer {layer.digest[:19]} is encrypted", "decrypt it with skopeo")
    return manifest


def read_config(data: bytes, what: str) -> ConfigFile:
    """Return an image's config. Raises ImageError: it is none."""
    return decode(data, ConfigFile, what)


def choose(index: Index, wanted: Platform, what: str) -> Descriptor:
    """Return the entry for a platform, an exact variant before any other.

    Raises:
        ImageError: there is none; the message says which there are.
    """
    offered = [(entry, platform_of(entry)) for entry in index.manifests]
    matching = [entry for entry, platform in offered if platform and wanted.runs(platform)]
    inner = [entry for entry, platform in offered if not platform and entry.media_type in INDEXES]
    if not matching and len(inner) == 1:
        return inner[0]  # an index around another, which says more
    if not matching:
        names = ", ".join(sorted({str(platform) for _, platform in offered if platform and platform.os != "unknown"}))
        raise ImageError(f"use {what}", f"it is not there for {wanted}", f"it is for {names or 'no platform at all'}")
    return next((entry for entry in matching if platform_of(entry) == wanted), matching[0])


def platform_of(entry: Descriptor) -> Platform | None:
    """Return what an index says of an entry's platform; nested indexes and artifacts have none, mostly."""
    found = entry.platform
    return Platform(found.os, found.architecture, found.variant) if found else None


def decode(data: bytes, kind: type[T], what: str) -> T:
    """Return JSON as what it should be. Raises ImageError: it is not."""
    try:
        return decoding.from_json(data, kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ImageError(f"read {what}", f"it is not what an image consists of: {error}", "name an image") from error
