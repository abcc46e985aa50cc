"""A pod's mounts, of host paths and of images: the CRI's messages and the engine's records, turned into each other."""

import os
from collections.abc import Iterable

from minirt.crimessages import api_pb2 as cri
from minirt.engine import idmessages
from minirt.engine.records import ImageVolume, Propagation, Volume
from minirt.errors import InvalidInput
from minirt.namespaces import idmap
from minirt.namespaces.idmap import Map

KINDS = cri.MountPropagation
PROPAGATIONS: dict[cri.MountPropagation.ValueType, Propagation] = {
    KINDS.PROPAGATION_PRIVATE: "private",
    KINDS.PROPAGATION_HOST_TO_CONTAINER: "slave",
    KINDS.PROPAGATION_BIDIRECTIONAL: "shared",
}
ASKED_FOR = {name: kind for kind, name in PROPAGATIONS.items()}


def volume(mount: cri.Mount) -> Volume:
    """Return what a mount asks for. A symbolic link on the host stands for what it leads to.

    In a pod's user namespace every volume is mapped to its ids, unless it has maps of its own. A kubelet gives it the
    pod's.

    Raises:
        InvalidInput: nothing is there, recursively read-only with what forbids it, or maps that make no sense.
    """
    what = f"mount {mount.host_path} at {mount.container_path}"
    if not mount.container_path:
        raise InvalidInput(f"mount {mount.host_path}", "it has no container_path", "say where")
    if not os.path.exists(mount.host_path):
        raise InvalidInput(what, "there is no such file or directory on this node", "make it first")
    if bool(mount.uidMappings) != bool(mount.gidMappings):
        raise InvalidInput(what, "only one of uidMappings and gidMappings is given", "give both, or none")
    propagation = PROPAGATIONS[mount.propagation]
    if mount.recursive_read_only and not (mount.readonly and propagation == "private"):
        why = "recursive_read_only goes with readonly, and with PROPAGATION_PRIVATE"
        raise InvalidInput(what, why, "set both, or leave it out")
    return Volume(
        mount.host_path,
        mount.container_path,
        mount.readonly,
        propagation,
        recursive=mount.recursive_read_only,
        uid_map=_map(mount.uidMappings, f"{what}: uidMappings"),
        gid_map=_map(mount.gidMappings, f"{what}: gidMappings"),
    )


def _map(mappings: Iterable[cri.IDMapping], what: str) -> Map:
    """Return a map of a mount's: ``container_id`` is on disk, ``host_id`` is shown. Raises InvalidInput."""
    found = idmessages.lines_of(mappings)
    idmap.check(found, what)
    return found


def message(volume: Volume) -> cri.Mount:
    """Return a volume as it was asked for."""
    return cri.Mount(
        container_path=volume.destination,
        host_path=volume.source,
        readonly=volume.readonly,
        recursive_read_only=volume.recursive,
        propagation=ASKED_FOR[volume.propagation],
        uidMappings=idmessages.mappings_of(volume.uid_map),
        gidMappings=idmessages.mappings_of(volume.gid_map),
    )


def image_volume(mount: cri.Mount) -> ImageVolume:
    """Return what a mount of an image asks for. Raises InvalidInput: it has no place, or a host_path as well."""
    what = f"mount the image {mount.image.image}"
    if not mount.container_path:
        raise InvalidInput(what, "it has no container_path", "say where")
    if mount.host_path:
        raise InvalidInput(what, f"it has a host_path, {mount.host_path}, as well", "name one of the two")
    image = mount.image
    return ImageVolume(image.image, mount.container_path, mount.image_sub_path, image.user_specified_image)


def image_message(volume: ImageVolume) -> cri.Mount:
    """Return a volume as it was asked for."""
    return cri.Mount(
        container_path=volume.destination,
        readonly=True,
        image=cri.ImageSpec(image=volume.image, user_specified_image=volume.user_image),
        image_sub_path=volume.sub_path,
    )
