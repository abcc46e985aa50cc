"""A pod's mounts, of host paths and of images: the CRI's messages and the engine's records, turned into each other."""

import os

from minirt.crimessages import api_pb2 as cri
from minirt.engine.confinement import refuse
from minirt.engine.records import ImageVolume, Propagation, Volume
from minirt.errors import InvalidInput

KINDS = cri.MountPropagation
PROPAGATIONS: dict[cri.MountPropagation.ValueType, Propagation] = {
    KINDS.PROPAGATION_PRIVATE: "private",
    KINDS.PROPAGATION_HOST_TO_CONTAINER: "slave",
    KINDS.PROPAGATION_BIDIRECTIONAL: "shared",
}
ASKED_FOR = {name: kind for kind, name in PROPAGATIONS.items()}


def volume(mount: cri.Mount, users: cri.UserNamespace) -> Volume:
    """Return what a mount asks for. A symbolic link on the host stands for what it leads to.

    In a pod's user namespace every volume is mapped to its ids, those of ``users``: so a kubelet asks for it, too.

    Raises:
        InvalidInput: nothing is there, or recursively read-only with what forbids it.
        Unsupported: ids mapped otherwise.
    """
    is_mapped = bool(mount.uidMappings or mount.gidMappings)
    is_pods = (list(mount.uidMappings), list(mount.gidMappings)) == (list(users.uids), list(users.gids))
    refuse(is_mapped and not is_pods, "a mount with ids mapped otherwise than the pod's")
    what = f"mount {mount.host_path} at {mount.container_path}"
    if not mount.container_path:
        raise InvalidInput(f"mount {mount.host_path}", "it has no container_path", "say where")
    if not os.path.exists(mount.host_path):
        raise InvalidInput(what, "there is no such file or directory on this node", "make it first")
    propagation = PROPAGATIONS[mount.propagation]
    if mount.recursive_read_only and not (mount.readonly and propagation == "private"):
        why = "recursive_read_only goes with readonly, and with PROPAGATION_PRIVATE"
        raise InvalidInput(what, why, "set both, or leave it out")
    return Volume(
        mount.host_path, mount.container_path, mount.readonly, propagation, recursive=mount.recursive_read_only
    )


def message(volume: Volume) -> cri.Mount:
    """Return a volume as it was asked for."""
    return cri.Mount(
        container_path=volume.destination,
        host_path=volume.source,
        readonly=volume.readonly,
        recursive_read_only=volume.recursive,
        propagation=ASKED_FOR[volume.propagation],
    )


def image_volume(mount: cri.Mount) -> ImageVolume:
    """Return what a mount of an image asks for. Raises InvalidInput: it has no place, or a host_path as well."""
    what = f"mount the image {mount.image.image}"
    if not mount.container_path:
        raise InvalidInput(what, "it has no container_path", "say where")
    if mount.host_path:
        raise InvalidInput(what, f"it has a host_path, {mount.host_path}, as well", "name one of the two")
    return ImageVolume(mount.image.image, mount.container_path, mount.image_sub_path)


def image_message(volume: ImageVolume) -> cri.Mount:
    """Return a volume as it was asked for."""
    return cri.Mount(
        container_path=volume.destination,
        readonly=True,
        image=cri.ImageSpec(image=volume.image),
        image_sub_path=volume.sub_path,
    )
