"""What an image is to the rest of minirt: plain facts, read once, never changed."""

import os
from collections.abc import Iterable
from itertools import accumulate

from msgspec import Struct, field

from minirt.errors import InvalidInput

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386", "i386": "386"}
VARIANTS = {"aarch64": "v8", "armv7l": "v7", "armv6l": "v6"}


class Platform(Struct, frozen=True):
    """What an image runs on, in Go's names: ``linux/arm64/v8``. A variant of "" stands for any."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """Return the platform that ``os/architecture[/variant]`` names. Raises InvalidInput."""
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(part.isalnum() and part == part.lower() for part in parts):
            why = "a platform is os/architecture[/variant]"
            raise InvalidInput(f"read the platform {text!r}", why, "for example linux/amd64, linux/arm64/v8")
        return cls(*parts)

    @classmethod
    def host(cls) -> "Platform":
        """Return what this machine runs."""
        machine = os.uname().machine
        return cls("linux", ARCHITECTURES.get(machine, machine), VARIANTS.get(machine, ""))

    def runs(self, other: "Platform") -> bool:
        """Say whether an image for ``other`` is one for this platform."""
        same_variant = not self.variant or not other.variant or self.variant == other.variant
        return (self.os, self.architecture) == (other.os, other.architecture) and same_variant

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class ImageConfig(Struct, frozen=True):
    """What the image says about running it. Source: image-spec, config.md."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)


class Image(Struct, frozen=True):
    """One image of the store.

    ``id`` is the digest of its config, ``names`` are full references with tags, ``digests`` are ``repository@digest``
    as pulled, ``size_bytes`` counts its blobs (compressed), ``created`` is RFC 3339 or "", ``diff_ids`` are its layers'
    digests when unpacked, the bottom one first.
    """

    id: str
    names: tuple[str, ...]
    digests: tuple[str, ...]
    size_bytes: int
    config: ImageConfig
    created: str
    platform: Platform
    diff_ids: tuple[str, ...]


def chain_ids(diff_ids: Iterable[str]) -> list[str]:
    """Return the chain id of each layer, the bottom one first: it names a layer together with all below it."""
    return list(accumulate(diff_ids, _chained))


def _chained(below: str, diff_id: str) -> str:
    import hashlib

    return f"sha256:{hashlib.sha256(f'{below} {diff_id}'.encode()).hexdigest()}"
