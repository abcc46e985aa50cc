"""A stage under construction: settings, and layers one above the other."""

import datetime
import json
from typing import Any

from minirt.builder import cache
from minirt.builder.settings import Settings
from minirt.images.image import Image, chain_ids
from minirt.images.manifest import DOCKER_LAYER, OCI_LAYER, Descriptor


class Stage:
    """What an image is so far. ``key`` tells it from all others that instructions have made, or will."""

    def __init__(self, settings: Settings, layers: list[Descriptor], name: str, base: str) -> None:
        self.settings = settings
        self.name = name
        self.layers = [_in_oci_words(layer) for layer in layers]
        self.diff_ids: list[str] = list(settings.document["rootfs"]["diff_ids"])
        self.key = cache.key(base, *self.diff_ids)
        self.inherited = len(self.layers)
        self._history: list[dict[str, Any]] = list(settings.document.get("history") or ())
        self._created = str(settings.document.get("created") or "")

    @property
    def chain(self) -> list[str]:
        """Return the chain ids of its layers."""
        return chain_ids(self.diff_ids)

    def image(self) -> Image:
        """Return it as an image to run something in; it is not in the store."""
        return self.settings.image(f"sha256:{self.key}", tuple(self.diff_ids))

    def add(self, source: str, made: cache.Made) -> None:
        """Put what an instruction made on top."""
        entry: dict[str, Any] = {"created": made.created, "created_by": source}
        if made.layer:
            self.layers.append(made.layer.descriptor)
            self.diff_ids.append(made.layer.diff_id)
        else:
            entry["empty_layer"] = True
        self._history.append(entry)
        self._created = made.created

    def config_text(self) -> str:
        """Return what its settings are, to tell them from others."""
        return json.dumps(self.settings.run, sort_keys=True)

    def config(self) -> bytes:
        """Return the image's config."""
        document = self.settings.document | {
            "created": self._created or now(),
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
            "history": self._history,
        }
        for stale in ("container", "container_config", "docker_version", "id", "parent"):  # of a docker that built it
            document.pop(stale, None)
        return json.dumps(document, ensure_ascii=False).encode()


def now() -> str:
    """Return the time as RFC 3339 has it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _in_oci_words(layer: Descriptor) -> Descriptor:
    """Return a layer with the media type that OCI has for it: a manifest is all of one kind."""
    if not layer.media_type.startswith(DOCKER_LAYER):
        return layer
    suffix = layer.media_type.removeprefix(DOCKER_LAYER).replace(".", "+")
    return Descriptor(OCI_LAYER + suffix, layer.digest, layer.size)
