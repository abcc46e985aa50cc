"""One entry of the spec's ``mounts`` to the operation that makes it: pure, and in the order of the spec.

Source: https://github.com/opencontainers/runtime-spec/blob/main/config.md#mounts
"""

import os

from minirt.errors import InvalidInput, Unsupported
from minirt.linux.mount import MOUNT_ATTR__ATIME, MOUNT_ATTR_RDONLY
from minirt.linux.operation import Operation
from minirt.namespaces.layers import MountLayers
from minirt.namespaces.mounts import BindMount, MountFilesystem
from minirt.oci import options
from minirt.oci.init import Init
from minirt.oci.options import MountOptions
from minirt.oci.spec import Mount
from minirt.oci.userns import Maps, lines


def compile_mount(mount: Mount, at: str, bundle: str, host_cgroups: str, ids: Maps | None = None) -> Operation[Init]:
    """Return a mount's operation; ``at`` is its place in the spec.

    ``host_cgroups`` is the host's cgroup2 mount for who has no cgroup namespace. There a fresh cgroup2 mount would
    change the mount options of the whole machine's hierarchy (nsdelegate and others belong to it, not to a mount):
    the host's mount is shown instead. ``ids`` are the maps of the container's user namespace: a bind mount with the
    option idmap, and without maps of its own, has these.

    Raises:
        InvalidInput: it names no source to bind, or no map for its ids.
        Unsupported: an option that cannot be heeded.
    """
    found = options.parse(mount.options, f"{at}.options", bind=mount.type == "bind")
    target = absolute(mount.destination)
    if mount.type in {"cgroup", "cgroup2"} and host_cgroups:
        return BindMount(host_cgroups, target, found.attributes.given | found.below.given, cause=mount.cause)
    if found.bind:
        return _bind(mount, found, at, bundle, ids or Maps())
    if mount.type == "overlay" and found.data and all(key == "lowerdir+" for key, _ in found.data):
        return _layers(mount, found, at, ids)
    _check_new(mount, found, at)
    fstype = "cgroup2" if mount.type == "cgroup" else mount.type
    given = found.attributes.given | found.below.given
    source = mount.source or fstype
    own = (found.copy_up, found.propagation)
    return MountFilesystem(fstype, source, target, given, found.data, mount.cause, *own)


def shows_cgroups_writable(mounts: tuple[Mount, ...]) -> bool:
    """Say whether a container sees its cgroup in a file system that it may write to."""
    for index, mount in enumerate(mounts):
        if mount.type in {"cgroup", "cgroup2"}:
            found = options.parse(mount.options, f"mounts[{index}].options")
            return not (found.attributes.given | found.below.given) & MOUNT_ATTR_RDONLY
    return False


def absolute(destination: str) -> str:
    """Return a destination as a path from the root, which is what a relative one is meant from."""
    return destination if destination.startswith("/") else f"/{destination}"


def _bind(mount: Mount, found: MountOptions, at: str, bundle: str, ids: Maps) -> BindMount:
    if not mount.source:
        raise InvalidInput(f"use {at}", "it is a bind mount without a source", "name a file or directory of the host")
    uid_map, gid_map = _maps(mount, found, at, ids)
    default = BindMount("", "").propagation
    return BindMount(
        os.path.join(bundle, mount.source),
        absolute(mount.destination),
        found.attributes.given,
        found.recursive,
        found.propagation or default,
        mount.cause,
        found.attributes.taken,
        found.below.given,
        found.below.taken,
        uid_map,
        gid_map,
        found.idmap == "ridmap",
    )


def _layers(mount: Mount, found: MountOptions, at: str, ids: Maps | None) -> MountLayers:
    """Return the mount of an overlay that has lower layers only: it can be of a part, and have the container's ids."""
    if mount.uid_mappings or mount.gid_mappings or found.copy_up or found.propagation:
        why = "of layers neither ids of their own nor a propagation can be chosen"
        raise Unsupported(f"use {at}", why, "leave these out; the option idmap is for the container's ids")
    lowers = tuple(value or "" for _, value in found.data)
    attributes = (found.attributes.given | found.below.given) & ~MOUNT_ATTR__ATIME | MOUNT_ATTR_RDONLY
    mapped = bool(found.idmap and ids)
    return MountLayers(lowers, absolute(mount.destination), found.subdir, attributes, mapped, mount.cause)


def _maps(mount: Mount, found: MountOptions, at: str, ids: Maps) -> tuple[tuple[tuple[int, int, int], ...], ...]:
    """Return the maps of users' and of groups' ids: both, or both empty."""
    maps = lines(mount.uid_mappings), lines(mount.gid_mappings)
    if found.idmap and not any(maps):
        maps = ids.uids, ids.gids
    if (found.idmap or any(maps)) and not all(maps):
        why = "its ids cannot be mapped without both uidMappings and gidMappings of its own"
        raise InvalidInput(f"use {at}", why, "give both, or leave out idmap")
    return maps


def _check_new(mount: Mount, found: MountOptions, at: str) -> None:
    if not mount.type:
        raise InvalidInput(f"use {at}", "it has no type and is no bind mount", "name one: tmpfs, or the option bind")
    if found.subdir:
        why = "X-mount.subdir is for overlays of lower layers only (lowerdir+=…)"
        raise Unsupported(f"use {at}.options", why, "leave it out")
    if found.idmap or mount.uid_mappings or mount.gid_mappings:
        raise Unsupported(f"use {at}", "only a bind mount's ids can be mapped here", "leave out its id mappings")
    if found.copy_up and mount.type != "tmpfs":
        raise Unsupported(f"use {at}.options", f"tmpcopyup is for tmpfs, not for {mount.type}", "leave it out")
