"""What layers look like on top of each other: a mount that nobody else sees, read only, held by its descriptor.

It is attached nowhere, so that it ends with the process that holds it, however that ends.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from minirt.namespaces.layers import stack


@contextlib.contextmanager
def view(layers: Sequence[Path]) -> Iterator[Path]:
    """Stack ``layers``, the top one first, while the block runs; the block gets where to look: a symlink.

    The top one may be the upper directory of a container, also of one that runs.

    Raises:
        OSError: the kernel refused to.
    """
    fd = detached(layers)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def detached(layers: Sequence[Path]) -> int:
    """Return the layers stacked as a detached mount, read only. Raises OSError."""
    return stack([str(layer) for layer in layers])
