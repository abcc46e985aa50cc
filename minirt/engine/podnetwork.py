"""The network of all pods, as the node sees it: whether there is one, its range, and what ended pods left of it."""

import logging
import os
import shutil
from ipaddress import IPv4Network, IPv6Network, ip_network

from minirt import paths
from minirt.engine import store
from minirt.errors import InvalidInput, NetworkError
from minirt.network.directories import Directories

log = logging.getLogger(__name__)


def trouble(directories: Directories | None) -> str:
    """Return why no sandbox can be attached to its network, "" if one can: by its plugins, or to our bridge."""
    from minirt.network import cni

    try:
        network = cni.find(directories) if directories else None
        if directories and network:
            found = os.pathsep.join(directories.plugins)
            absent = [one["type"] for one in network.plugins if not shutil.which(one["type"], path=found)]
            if absent:
                return f"the CNI plugin {absent[0]} is not in {found}"
            cni.status(network, directories.plugins)
            return ""
    except (InvalidInput, NetworkError) as error:
        return str(error)
    from minirt.network.firewall import SEARCH

    if not shutil.which("nft", path=os.environ.get("PATH", "") + ":" + SEARCH):
        return "nft is not installed (apt install nftables)"
    return ""


def begin(directories: Directories | None) -> None:
    """Give back what ended pods had, and say once what pods will not have. No sandbox may be attached meanwhile."""
    from minirt.network import cni
    from minirt.network.settings import IPV6_OFF, has_ipv6

    try:
        network = cni.find(directories) if directories else None
    except InvalidInput:
        return  # Status tells
    if network is None and not has_ipv6():
        log.info("IPv6 is off (%s): pods get IPv4 addresses only", IPV6_OFF)
    if directories and network:
        attached = {one.id: cni.attached(paths.sandbox_dir(one.id)) for one in store.sandboxes()}
        valid = [key for key, what in attached.items() if what and what.network.name == network.name]
        for error in cni.collect(network, directories.plugins, valid):
            log.warning("%s", error)


def take_range(pod_cidr: str) -> None:
    """Take the range that a kubelet was told for its pods; or two, of IPv4 and IPv6: "10.1.2.0/24,fd01::/64".

    What is set by the environment stays; so does a range in which there are pods. An empty one is none.

    Raises:
        InvalidInput: that is no range.
    """
    if not pod_cidr:
        return
    from minirt.network import addresses

    try:
        ranges = [ip_network(text.strip()) for text in pod_cidr.split(",")]
    except ValueError as error:
        raise InvalidInput("use the pods' range", str(error), "write it like 10.1.2.0/24") from error
    why = addresses.take_range(
        next((one for one in ranges if isinstance(one, IPv4Network)), None),
        next((one for one in ranges if isinstance(one, IPv6Network)), None),
    )
    if why:
        log.warning("pods do not get addresses of %s: %s", pod_cidr, why)
