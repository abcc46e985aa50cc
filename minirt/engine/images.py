"""Images for who wants to run one: here already, or pulled now."""

from collections.abc import Callable
from typing import Any

from minirt.errors import NotFound
from minirt.images.image import Image
from minirt.images.reference import Reference
from minirt.images.store import ImageStore

Progress = Callable[[Any], None]


def ensure(name: str, policy: str, progress: Progress | None = None) -> Image:
    """Return the image ``name``, pulled if ``policy`` (missing, always, never) says so.

    Raises:
        NotFound: it is not here, and may not or cannot be pulled.
        RegistryError: the registry.
    """
    store = ImageStore()
    if policy != "always":
        try:
            return store.get(name)
        except NotFound:
            if policy == "never" or Reference.parse(name).registry == "localhost":
                raise
    return store.pull(name, progress=progress)
