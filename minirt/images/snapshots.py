"""Layers as directories, shared by all images that stand on them, and a writable one for each container.

    snapshots/<chain id>/fs             a layer, unpacked; read only, for as long as an image or a container uses it
    snapshots/containers/<key>/         one container's: upper/  work/  layers.json (the chain ids it stands on)
                                        image (a symlink to nowhere: the image's id)
                                        volumes.json (of images it mounts: id, and chain ids)

A chain id names a layer together with all below it, so that a directory is right for every image that has the same
beginning. Nothing is mounted here: the container's init mounts the overlay inside of its own mount namespace.

Source: image-spec config.md, "Layer ChainID"; the kernel's filesystems/overlayfs.rst
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from minirt.errors import Conflict, NotFound
from minirt.images import disk, garbage
from minirt.images.blobs import Blobs, hex_of
from minirt.images.image import Image, chain_ids
from minirt.images.marks import is_opaque
from minirt.images.workspace import Workspace, locked
from minirt.paths import checked_id


class Overlay(Struct, frozen=True):
    """What to mount as an overlay: ``lowers`` the top one first, never empty."""

    lowers: tuple[Path, ...]
    upper: Path
    work: Path


class Snapshots:
    """The unpacked layers and the writable ones of one store."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._top = root / "snapshots"
        self._containers = self._top / "containers"

    def layer(self, chain_id: str) -> Path:
        """Return the directory of an unpacked layer, or where it would be."""
        return self._top / hex_of(chain_id) / "fs"

    def unpack(self, blob: Path, diff_id: str, chain: Sequence[str], job: Workspace) -> None:
        """Unpack a layer, unless it is there; ``chain`` are the chain ids up to its own. See ``unpack.unpack``."""
        from minirt.images.unpack import unpack

        target = self.layer(chain[-1])
        if target.exists():
            return
        lowers = [self.layer(chain_id) for chain_id in reversed(chain[:-1])]
        new = job.path / hex_of(chain[-1])
        new.mkdir(mode=0o755)
        unpack(blob, new / "fs", diff_id, lowers)
        self._top.mkdir(mode=0o700, exist_ok=True)
        try:
            disk.move(new, target.parent)
        except OSError:
            if not target.exists():
                raise
            disk.remove_tree(new)  # another job was faster

    def prepare(self, key: str, image: Image, volumes: Sequence[Image] = ()) -> Overlay:
        """Make a container's writable layer on top of an image's; ``key`` is the container's id.

        It keeps the layers of ``volumes``, images that the container mounts, as well.

        Raises:
            Conflict: there is one with this key.
            NotFound: a layer of the image is not unpacked here.
        """
        home = self._containers / checked_id(key)
        with locked(self._root):
            if home.exists():
                raise Conflict(f"make a snapshot for {key}", "there is one", "remove the container first")
            chain = chain_ids(image.diff_ids)
            chains = {one.id: chain_ids(one.diff_ids) for one in volumes}
            for one in (chain, *chains.values()):
                self._check_unpacked(key, one)
            self._make(home, chain, image.id, chains)
        for used in (image.id, *chains):
            Blobs(self._root).touch(used)
        return self.get(key)

    def _make(self, home: Path, chain: list[str], image_id: str, volumes: dict[str, list[str]]) -> None:
        """Make the directories under a temporary name: with the record, or not at all.

        Where they go when they are removed is made now: then the disk may be full.
        """
        garbage.make_trash(self._root)
        new = home.with_name(home.name + garbage.NEW)
        if new.exists():
            disk.remove_tree(new)
        self._top.mkdir(mode=0o700, exist_ok=True)
        for name in ("upper", "work", "empty"):
            (new / name).mkdir(parents=True)
            os.chmod(new / name, 0o755)
        if chain:
            root = os.stat(self.layer(chain[-1]))
            os.chown(new / "upper", root.st_uid, root.st_gid)
            os.chmod(new / "upper", stat.S_IMODE(root.st_mode))
        (new / "layers.json").write_bytes(msgspec.json.encode(chain))
        if volumes:
            (new / garbage.VOLUMES).write_bytes(msgspec.json.encode(volumes))
        os.symlink(image_id, new / "image")
        new.rename(home)

    def get(self, key: str) -> Overlay:
        """Return a container's overlay. Raises NotFound."""
        home = self._containers / checked_id(key)
        chain = garbage.layers_of(home)
        if chain is None:
            raise NotFound(f"find the snapshot of {key}", "there is none")
        return self._overlay(home, chain)

    def volume(self, key: str, image: Image) -> tuple[Path, ...]:
        """Return the layers of an image that a container mounts, the top one first, never empty."""
        return self._overlay(self._containers / checked_id(key), chain_ids(image.diff_ids)).lowers

    def upper(self, key: str) -> Path:
        """Return the directory that a container writes to, or where it would be."""
        return self._containers / checked_id(key) / "upper"

    def preview(self, key: str, image: Image) -> Overlay:
        """Return what ``prepare`` would, and make nothing. Raises NotFound: a layer is not unpacked here."""
        chain = chain_ids(image.diff_ids)
        self._check_unpacked(key, chain)
        return self._overlay(self._containers / checked_id(key), chain)

    def of_image(self, image_id: str) -> list[str]:
        """Return the keys of all containers that stand on an image, or mount it."""
        return [key for key in self.keys() if image_id in self._images_of(key)]

    def images(self) -> set[str]:
        """Return the ids of all images that containers stand on, or mount."""
        return {image for key in self.keys() for image in self._images_of(key)} - {""}

    def _images_of(self, key: str) -> set[str]:
        return {self._image_of(key), *garbage.volumes_of(self._containers / key)}

    def _image_of(self, key: str) -> str:
        try:
            return os.readlink(self._containers / key / "image")
        except OSError:
            return ""  # it has just been removed

    def has(self, key: str) -> bool:
        """Say whether there is a container's snapshot of this key."""
        return (self._containers / checked_id(key)).exists()

    def keys(self) -> list[str]:
        """Return the keys of all containers that have a snapshot."""
        return [home.name for home in garbage.children(self._containers) if not home.name.endswith(garbage.NEW)]

    def _overlay(self, home: Path, chain: list[str]) -> Overlay:
        lowers = _visible([self.layer(chain_id) for chain_id in reversed(chain)])
        return Overlay(tuple(lowers) or (home / "empty",), home / "upper", home / "work")

    def _check_unpacked(self, key: str, chain: list[str]) -> None:
        missing = [chain_id for chain_id in chain if not self.layer(chain_id).exists()]
        if missing:
            why = f"layer {missing[0][:19]} of its image is not in the store"
            raise NotFound(f"make a snapshot for {key}", why, "pull or load the image again")

    def remove(self, key: str) -> None:
        """Remove a container's writable layer, and layers that it was the last to use. Gone already is fine."""
        home = self._containers / checked_id(key)
        with locked(self._root):
            kept = garbage.kept_by(home)
            gone = garbage.discard(self._root, home) if home.exists() else None
        if gone:
            garbage.delete(gone)
        if not garbage.of_images(self._root).issuperset(kept):
            garbage.collect(self._root)


def _visible(layers: list[Path]) -> list[Path]:
    """Return the layers, the top one first, down to one whose root hides the rest: overlayfs does not look there."""
    for count, layer in enumerate(layers, 1):
        if is_opaque(layer):
            return layers[:count]
    return layers
