"""What nothing uses goes: blobs and layers of no image, of no container and of no job under way.

A sweep of everything, not a count of references: after a crash at any point the next one finds what is left over.
"""

import errno
import os
from pathlib import Path

import msgspec

from minirt import decoding
from minirt.images import disk
from minirt.images.blobs import hex_of
from minirt.images.catalog import Catalog
from minirt.images.image import chain_ids
from minirt.images.workspace import leases, locked

NEW = "~"
"""How the name of a container's snapshot ends while it is made: under the store's lock, or its maker has died."""


def collect(root: Path) -> list[str]:
    """Remove what nothing uses; return the digests of the blobs that went."""
    with locked(root):
        for path in children(root / "snapshots" / "containers"):
            if path.name.endswith(NEW):
                discard(root, path)
        gone = unused(root)
        for path in gone:
            discard(root, path)
    for path in children(root / "trash"):
        delete(path)
    return [f"sha256:{path.name}" for path in gone if path.parent.name == "sha256"]


def unused(root: Path) -> list[Path]:
    """Return the blobs, and after them the layers, that nothing uses. Hold the store's lock."""
    used = {hex_of(digest) for digest in _used(root)}
    layers = [path for path in children(root / "snapshots") if path.name != "containers"]
    return [path for path in (*children(root / "blobs" / "sha256"), *layers) if path.name not in used]


def discard(root: Path, path: Path) -> Path:
    """Take something out of the store at once; return where it waits to be deleted, at worst by a later sweep."""
    return path.rename(make_trash(root) / f"{path.name}-{os.urandom(4).hex()}")


def make_trash(root: Path) -> Path:
    """Make sure of the directory for what is discarded, and return it."""
    trash = root / "trash"
    trash.mkdir(mode=0o700, exist_ok=True)
    return trash


def layers_of(container: Path) -> list[str] | None:
    """Return the chain ids that a container's snapshot stands on, None where there is no such snapshot.

    It is not worth a wait for the disk: one that a power cut left empty was of a container that has ended by it.
    """
    try:
        return decoding.from_json((container / "layers.json").read_bytes(), list[str])
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def delete(path: Path) -> None:
    """Delete what was discarded. Another caller may be deleting the same: then go on with what is left."""
    with disk.flocked(path.parent, shared=True):
        while os.path.lexists(path):
            try:
                if path.is_dir() and not path.is_symlink():
                    disk.remove_tree(path)
                else:
                    path.unlink()
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                    raise


def forgotten(root: Path) -> list[Path]:
    """Return what is in the trash, unless somebody is deleting there."""
    found = children(root / "trash")
    return [] if found and disk.is_flocked(root / "trash") else found


def of_images(root: Path) -> set[str]:
    """Return every digest that belongs to an image: of blobs, and chain ids of layers."""
    records = Catalog(root).records()
    return {digest for record in records for digest in (*record.blobs, *chain_ids(record.diff_ids))}


def _used(root: Path) -> set[str]:
    used = leases(root) | of_images(root)
    for container in children(root / "snapshots" / "containers"):
        used.update(layers_of(container) or ())
    return used


def children(directory: Path) -> list[Path]:
    """Return what is in a directory, nothing where there is none."""
    return list(directory.iterdir()) if directory.exists() else []
