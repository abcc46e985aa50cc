"""Which bridge, which addresses, which ports of the host: everything that a plan of this room is compiled from."""

import os
import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Literal

from msgspec import Struct, field

from minirt.errors import InvalidInput

INTERFACE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")
"""What the kernel takes (IFNAMSIZ less its zero), less what nft and iptables would want quoted."""

SMALLEST_SUBNET = 30


def _bridge() -> str:
    return os.environ.get("MINIRT_BRIDGE", "minirt0")


def _subnet() -> IPv4Network:
    text = os.environ.get("MINIRT_SUBNET", "10.77.0.0/16")
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise InvalidInput("read MINIRT_SUBNET", str(error), "write it like 10.77.0.0/16") from error


class BridgeSettings(Struct, frozen=True):
    """A bridge and its subnet (``MINIRT_BRIDGE``, ``MINIRT_SUBNET``). The first address is the bridge's own.

    The default subnet is neither docker's (172.17.0.0/16) nor podman's (10.88.0.0/16).

    Raises:
        InvalidInput: not a name for an interface, or a subnet without room for two addresses.
    """

    bridge: str = field(default_factory=_bridge)
    subnet: IPv4Network = field(default_factory=_subnet)
    mtu: int = 1500

    def __post_init__(self) -> None:
        if not INTERFACE_NAME.fullmatch(self.bridge) or self.bridge in (".", ".."):
            raise InvalidInput(
                "name a bridge", f"{self.bridge!r} is no interface name", "use 1 to 15 of A-Z, a-z, 0-9, '_', '.', '-'"
            )
        if self.subnet.prefixlen > SMALLEST_SUBNET:
            raise InvalidInput("use a subnet", f"{self.subnet} has no address for a pod", "use a /30 or larger")

    @property
    def gateway(self) -> IPv4Interface:
        """Return the bridge's own address: the subnet's first."""
        return IPv4Interface((int(self.subnet.network_address) + 1, self.subnet.prefixlen))

    @property
    def mac(self) -> str:
        """Return the bridge's MAC address. By it a bridge is known to be ours, made for this subnet."""
        return mac_of(self.gateway.ip)


EVERY_ADDRESS = IPv4Address(0)


class PortMapping(Struct, frozen=True):
    """A port of the host that leads to a port of the sandbox. Host address 0.0.0.0 means each one, localhost too.

    Raises:
        InvalidInput: a port outside 1 to 65535.
    """

    host_port: int
    container_port: int
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    host_ip: IPv4Address = EVERY_ADDRESS

    def __post_init__(self) -> None:
        for port in (self.host_port, self.container_port):
            if not 0 < port < 65536:
                raise InvalidInput(f"map port {self.host_port}", f"{port} is not a port", "use 1 to 65535")

    def __str__(self) -> str:
        return f"{self.host_ip}:{self.host_port}/{self.protocol}"

    def collides_with(self, other: "PortMapping") -> bool:
        """Say whether both want the same port of the same host address."""
        same_ip = self.host_ip == other.host_ip or self.host_ip.is_unspecified or other.host_ip.is_unspecified
        return same_ip and (self.host_port, self.protocol) == (other.host_port, other.protocol)


def mac_of(address: IPv4Address) -> str:
    """Return the MAC address that goes with an IP address, so that an ARP entry of a reused address stays true.

    0x0a marks it as locally administered.
    """
    return ":".join(f"{byte:02x}" for byte in (0x0A, 0x4D, *address.packed))
