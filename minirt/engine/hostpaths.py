"""A pod's mounts of host paths: the CRI's messages and the engine's volumes, each turned into the other."""

import os

from minirt.crimessages import api_pb2 as cri
from minirt.engine.confinement import refuse
from minirt.engine.records import Propagation, Volume
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
        Unsupported: an image, ids mapped otherwise.
    """
    refuse(mount.HasField("image") and bool(mount.image.image), "an image volume")
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
