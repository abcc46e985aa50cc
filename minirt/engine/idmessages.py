"""The CRI's messages of user namespaces, and the maps they stand for. Pure."""

from collections.abc import Iterable

from minirt.crimessages import api_pb2 as cri
from minirt.errors import Unsupported
from minirt.namespaces import idmap
from minirt.namespaces.idmap import Map


def maps(options: cri.NamespaceOption) -> tuple[Map, Map]:
    """Return the maps of a sandbox's user namespace, both empty for the host's. It is who asks that finds free ids.

    Raises:
        InvalidInput: a map that makes no sense, or none.
        Unsupported: a user namespace that is neither the host's nor the pod's.
    """
    asked = options.userns_options
    if not options.HasField("userns_options") or asked.mode == cri.NamespaceMode.NODE:
        return (), ()
    if asked.mode != cri.NamespaceMode.POD:
        raise Unsupported("use userns_options", "its mode is neither NODE nor POD", "use one of these")
    found = lines_of(asked.uids), lines_of(asked.gids)
    for name, lines in (("uids", found[0]), ("gids", found[1])):
        idmap.check(lines, f"userns_options.{name}")
        idmap.check_root(lines, f"userns_options.{name}")
    return found


def of_maps(uid_map: Map, gid_map: Map) -> cri.UserNamespace:
    """Return a pod's user namespace with these maps."""
    return cri.UserNamespace(mode=cri.NamespaceMode.POD, uids=mappings_of(uid_map), gids=mappings_of(gid_map))


def lines_of(mappings: Iterable[cri.IDMapping]) -> Map:
    """Return mappings as lines of a uid_map."""
    return tuple((one.container_id, one.host_id, one.length) for one in mappings)


def mappings_of(lines: Map) -> list[cri.IDMapping]:
    """Return lines of a uid_map as mappings."""
    return [cri.IDMapping(container_id=inside, host_id=outside, length=size) for inside, outside, size in lines]
