"""Images for who wants to run one: here already, or pulled now."""

import contextlib
from collections.abc import Callable

from minirt.errors import NotFound
from minirt.images.image import Image
from minirt.images.progress import Report
from minirt.images.reference import Reference
from minirt.images.store import ImageStore

Showing = Callable[[str], contextlib.AbstractContextManager[Report | None]]
"""Shows the pull of an image while it lasts, and is told of its progress."""


def ensure(name: str, policy: str, showing: Showing) -> Image:
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
    with showing(name) as report:
        return store.pull(name, progress=report)
