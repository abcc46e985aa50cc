"""Which bridge, which addresses, which ports of the host: everything that a plan of this room is compiled from."""

import os
import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_address
from pathlib import Path
from typing import Literal

from msgspec import Struct, field

from minirt import paths
from minirt.errors import InvalidInput, Unsupported

INTERFACE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")
"""What the kernel takes (IFNAMSIZ less its zero), less what nft and iptables would want quoted."""

SMALLEST_SUBNET = 30
PREFIX_BITS = 96
IPV6_PREFIX = "fdcd:7ee:a274::/96"
"""Unique local addresses, their 40 bits drawn by lot. Source: RFC 4193, section 3.2."""
IPV6_OFF = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")


def _bridge() -> str:
    return os.environ.get("MINIRT_BRIDGE", "minirt0")


def _subnet() -> IPv4Network:
    text = os.environ.get("MINIRT_SUBNET", _told(4) or "10.77.0.0/16")
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise InvalidInput("read MINIRT_SUBNET", str(error), "write it like 10.77.0.0/16") from error


def range_file() -> Path:
    """Return the file of the ranges that a kubelet has told: what is in it holds for every process of this node."""
    return paths.state_root() / "network/range"


def _told(version: int) -> str:
    try:
        words = range_file().read_text().split()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return next((word for word in words if (":" in word) == (version == 6)), "")


def has_ipv6() -> bool:
    """Say whether interfaces of this network namespace that are yet to come will speak IPv6."""
    try:
        return IPV6_OFF.read_text().strip() == "0"
    except FileNotFoundError:
        return False


def _prefix6() -> IPv6Network | None:
    text = os.environ.get("MINIRT_IPV6_PREFIX", _told(6) or IPV6_PREFIX)
    if text == "none" or not has_ipv6():
        return None
    try:
        return IPv6Network(text)
    except ValueError as error:
        raise InvalidInput("read MINIRT_IPV6_PREFIX", str(error), f"write it like {IPV6_PREFIX}, or none") from error


class BridgeSettings(Struct, frozen=True):
    """A bridge and its subnet (``MINIRT_BRIDGE``, ``MINIRT_SUBNET``). The first address is the bridge's own.

    The default subnet is neither docker's (172.17.0.0/16) nor podman's (10.88.0.0/16).

    Every IPv4 address has an IPv6 address that goes with it: the prefix (``MINIRT_IPV6_PREFIX``), then the IPv4 address
    as its last 32 bits. So one lease gives both away, and nodes whose subnets differ differ in both. Without IPv6 in
    the kernel, or with "none", there is no prefix.

    Raises:
        InvalidInput: not a name for an interface, a subnet without room for two addresses, a prefix that is no /96.
    """

    bridge: str = field(default_factory=_bridge)
    subnet: IPv4Network = field(default_factory=_subnet)
    mtu: int = 1500
    prefix6: IPv6Network | None = field(default_factory=_prefix6)

    def __post_init__(self) -> None:
        if not INTERFACE_NAME.fullmatch(self.bridge) or self.bridge in (".", ".."):
            raise InvalidInput(
                "name a bridge", f"{self.bridge!r} is no interface name", "use 1 to 15 of A-Z, a-z, 0-9, '_', '.', '-'"
            )
        if self.subnet.prefixlen > SMALLEST_SUBNET:
            raise InvalidInput("use a subnet", f"{self.subnet} has no address for a pod", "use a /30 or larger")
        if self.prefix6 and self.prefix6.prefixlen != PREFIX_BITS:
            why = f"{self.prefix6} leaves not 32 bits for an IPv4 address"
            raise InvalidInput("use an IPv6 prefix", why, f"use a /{PREFIX_BITS}, or none")

    @property
    def gateway(self) -> IPv4Interface:
        """Return the bridge's own address: the subnet's first."""
        return IPv4Interface((int(self.subnet.network_address) + 1, self.subnet.prefixlen))

    @property
    def subnet6(self) -> IPv6Network | None:
        """Return the IPv6 addresses that go with the subnet, if there are any."""
        first = self.address6(self.subnet.network_address)
        return IPv6Network((first, PREFIX_BITS + self.subnet.prefixlen)) if first else None

    @property
    def gateway6(self) -> IPv6Interface | None:
        """Return the bridge's own IPv6 address, if it has one."""
        return self.interface6(self.gateway.ip)

    def address6(self, address: IPv4Address) -> IPv6Address | None:
        """Return the IPv6 address that goes with an IPv4 address, if there is one."""
        return IPv6Address(int(self.prefix6.network_address) | int(address)) if self.prefix6 else None

    def interface6(self, address: IPv4Address) -> IPv6Interface | None:
        """Return the same with its subnet."""
        found = self.address6(address)
        return IPv6Interface((found, PREFIX_BITS + self.subnet.prefixlen)) if found else None

    @property
    def mac(self) -> str:
        """Return the bridge's MAC address. By it a bridge is known to be ours, made for this subnet."""
        return mac_of(self.gateway.ip)


class PortMapping(Struct, frozen=True):
    """A port of the host that leads to a port of the sandbox.

    Host address "" means each one, 127.0.0.1 too; 0.0.0.0 each of IPv4, and :: each of IPv6 but ::1.

    Raises:
        InvalidInput: a port outside 1 to 65535, or what is no address.
        Unsupported: the host address ::1, which the kernel leads nowhere.
    """

    host_port: int
    container_port: int
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    host_ip: str = ""

    def __post_init__(self) -> None:
        for port in (self.host_port, self.container_port):
            if not 0 < port < 65536:
                raise InvalidInput(f"map port {self.host_port}", f"{port} is not a port", "use 1 to 65535")
        try:
            _ = self.hosts
        except ValueError as error:
            raise InvalidInput(f"map port {self.host_port}", str(error), "give an address of the host") from error
        if IPv6Address(1) in self.hosts:
            why = "what is sent to ::1 never leaves the host (there is no route_localnet for IPv6)"
            raise Unsupported(f"map port {self.host_port}", why, "use 127.0.0.1")

    def __str__(self) -> str:
        address = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip or "*"
        return f"{address}:{self.host_port}/{self.protocol}"

    @property
    def hosts(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """Return the host's addresses, the unspecified one of a family for each of it."""
        return (ip_address(self.host_ip),) if self.host_ip else (IPv4Address(0), IPv6Address(0))

    def collides_with(self, other: "PortMapping") -> bool:
        """Say whether both want the same port of the same host address."""
        if (self.host_port, self.protocol) != (other.host_port, other.protocol):
            return False
        return any(
            one.version == two.version and (one == two or one.is_unspecified or two.is_unspecified)
            for one in self.hosts
            for two in other.hosts
        )


def mac_of(address: IPv4Address) -> str:
    """Return the MAC address that goes with an IP address, so that an ARP entry of a reused address stays true.

    0x0a marks it as locally administered.
    """
    return ":".join(f"{byte:02x}" for byte in (0x0A, 0x4D, *address.packed))
