"""Images that a container mounts: found, looked into, and turned into mounts of their layers.

The container's own init stacks the layers, so that no mount outlives the container, whoever is killed. What keeps the
layers is the container's snapshot, as it keeps those of its own image.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from minirt.engine.records import ContainerConfig, ImageVolume
from minirt.errors import NotFound
from minirt.images.image import Image
from minirt.linux import fds
from minirt.namespaces import inroot
from minirt.oci.options import SUBDIR
from minirt.oci.spec import Mount

FAILED = "ImageVolumeMountFailed"
"""What a kubelet looks for in the message. Source: cri-api's pkg/errors"""
Layers = Mapping[str, Sequence[Path]]
"""Layers, the top one first, of the images that are mounted, by the names they were asked for by."""
OPTIONS = ("ro", "nosuid", "nodev", "noexec")
"""As CRI-O's; Kubernetes promises ro and noexec."""


def find(config: ContainerConfig) -> dict[str, Image]:
    """Return the images that a container mounts. Raises NotFound: one is not here."""
    from minirt.images.store import ImageStore

    found = {}
    for volume in config.images:
        try:
            found[volume.image] = ImageStore().get(volume.image)
        except NotFound as error:
            raise NotFound(f"mount the image {volume.image}", f"{FAILED}: {error.why}", error.do) from error
    return found


def check(config: ContainerConfig, layers: Layers) -> None:
    """See that images have what is to be mounted of them. Raises NotFound."""
    for volume in config.images:
        if volume.sub_path:
            _check_part(volume, layers[volume.image])


def _check_part(volume: ImageVolume, layers: Sequence[Path]) -> None:
    from minirt.images.view import detached

    with fds.closing(detached(layers)) as whole:
        try:
            os.close(inroot.open_path(whole, volume.sub_path))
        except OSError as error:
            what = f"mount {volume.sub_path} of the image {volume.user_image or volume.image}"
            why = f"{FAILED}: {error.strerror or error} (in the image)"
            raise NotFound(what, why, "name what the image has") from error


def mounts(config: ContainerConfig, layers: Layers, *, mapped: bool) -> list[Mount]:
    """Return the mounts; ``mapped``: the files' ids are those of the container's user namespace."""
    return [_mount(volume, layers[volume.image], mapped=mapped) for volume in config.images]


def _mount(volume: ImageVolume, layers: Sequence[Path], *, mapped: bool) -> Mount:
    options = [*OPTIONS, *(f"lowerdir+={layer}" for layer in layers)]
    options += ["idmap"] if mapped else []
    options += [f"{SUBDIR}{volume.sub_path}"] if volume.sub_path else []
    return Mount(volume.destination, "overlay", "overlay", tuple(options))
