"""The steps of attaching a sandbox, in the kernel's words. A plan is a list of these; ``bridge`` compiles it."""

import contextlib
import errno
import os
import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_network
from pathlib import Path

from msgspec import Struct

from minirt.errors import NetworkError
from minirt.linux.fds import write_file
from minirt.linux.operation import Operation
from minirt.network import firewall
from minirt.network.firewall import Firewall, Forward
from minirt.network.rtnetlink import (
    IFF_UP,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    RT_TABLE_MAIN,
    Message,
    Rtnetlink,
)
from minirt.network.settings import BridgeSettings, PortMapping

AF_INET, AF_INET6 = 2, 10
IFA_F_NODAD = 2
RT_SCOPE_UNIVERSE = 0
RTN_UNICAST = 1
RTPROT_STATIC = 4
CARRIER_TIMEOUT_S = 2.0
SYSCTL = Path("/proc/sys/net")


class HostContext(Struct, frozen=True):
    """What the host's half of a plan needs: its netlink, its rules, and every host port that leads into a pod."""

    host: Rtnetlink
    firewall: Firewall
    forwards: Sequence[Forward]


class SandboxContext(Struct, frozen=True):
    """What the sandbox's half of a plan needs: netlink on both sides, and a descriptor of the sandbox's namespace."""

    host: Rtnetlink
    inner: Rtnetlink
    netns_fd: int


class EnsureBridge(Operation[HostContext], frozen=True):
    """Make the bridge and give it its address, whatever of that is not done yet."""

    settings: BridgeSettings

    def describe(self) -> str:
        """Return the operation in the kernel's words."""
        bridge, gateways = self.settings.bridge, " and ".join(map(str, self._gateways))
        return f"RTM_NEWLINK {bridge}: bridge, up, unless it is there; RTM_NEWADDR {gateways} on {bridge}"

    @property
    def _gateways(self) -> list[IPv4Interface | IPv6Interface]:
        return [address for address in (self.settings.gateway, self.settings.gateway6) if address]

    def execute(self, context: HostContext, /) -> None:
        """Do it.

        Raises:
            NetworkError: a route of the host leads into the subnet, or the interface there is not minirt's.
        """
        name = self.settings.bridge
        link = context.host.link(name)
        if link is None:
            self._refuse_overlap(context.host, AF_INET, self.settings.subnet, "MINIRT_SUBNET", "10.99.0.0/16")
            if self.settings.subnet6:
                another = ("MINIRT_IPV6_PREFIX", "fd99::/96")
                self._refuse_overlap(context.host, AF_INET6, self.settings.subnet6, *another)
            context.host.change(self._newlink())
        elif (link.kind, link.mac) != ("bridge", self.settings.mac):
            raise NetworkError(
                f"use {name} as a bridge",
                "there is an interface of that name that minirt did not make for this subnet",
                "set MINIRT_BRIDGE to another name, or remove it: ip link delete " + name,
            )
        index = link.index if link else context.host.index(name)
        for gateway in self._gateways:
            context.host.change(_newaddr(index, gateway, NLM_F_REPLACE))

    def _newlink(self) -> Message:
        attributes = {
            "IFLA_IFNAME": self.settings.bridge,
            "IFLA_ADDRESS": self.settings.mac,
            "IFLA_MTU": self.settings.mtu,
            "IFLA_LINKINFO": {"IFLA_INFO_KIND": "bridge"},
        }
        return Message("RTM_NEWLINK", {"flags": IFF_UP, "change": IFF_UP}, attributes, NLM_F_CREATE | NLM_F_EXCL)

    def _refuse_overlap(
        self, host: Rtnetlink, family: int, ours: IPv4Network | IPv6Network, variable: str, example: str
    ) -> None:
        for route in host.ask(Message("RTM_GETROUTE", {"family": family}, flags=NLM_F_DUMP)):
            if route.get_attr("RTA_TABLE") != RT_TABLE_MAIN or not route.get_attr("RTA_DST"):
                continue
            there = ip_network(f"{route.get_attr('RTA_DST')}/{route['dst_len']}")
            if there.version == ours.version and there.overlaps(ours):
                raise NetworkError(
                    f"make bridge {self.settings.bridge}",
                    f"its subnet {ours} overlaps the host's route to {there}",
                    f"set {variable} to a free one, such as {example}",
                )


class SetSysctl(Operation[HostContext], frozen=True):
    """Write a file below /proc/sys/net, unless it says so already or (IPv6) the kernel does not have it."""

    key: str
    value: str

    def describe(self) -> str:
        """Return the operation in the kernel's words."""
        return f"write {self.value} to {SYSCTL / self.key}"

    def execute(self, context: HostContext, /) -> None:
        """Do it. Raises OSError: EROFS where /proc/sys is read-only."""
        file = SYSCTL / self.key
        if file.exists() and file.read_text().strip() != self.value:
            write_file(str(file), self.value)


class ForwardIpv6(Operation[HostContext], frozen=True):
    """Have the host route IPv6, unless it does; as a router it still learns its own routes as it did before.

    A router takes no router's advertisements, and forgets the routes it has by them, unless accept_ra is 2.
    Source: Documentation/networking/ip-sysctl.rst, accept_ra and forwarding.
    """

    def describe(self) -> str:
        """Return the operation in the kernel's words."""
        places = f"{SYSCTL}/ipv6/conf/*/accept_ra where it is 1, then 1 to {SYSCTL}/ipv6/conf/all/forwarding"
        return f"write 2 to {places}, unless it is 1"

    def execute(self, context: HostContext, /) -> None:
        """Do it. Raises OSError: EROFS where /proc/sys is read-only."""
        conf = SYSCTL / "ipv6/conf"
        if (conf / "all/forwarding").read_text().strip() == "0":
            for file in conf.glob("*/accept_ra"):
                with contextlib.suppress(FileNotFoundError):  # interfaces come and go
                    if file.read_text().strip() == "1":
                        write_file(str(file), "2")
            write_file(str(conf / "all/forwarding"), "1")


class InstallNat(Operation[HostContext], frozen=True):
    """Put the bridge's nftables table in place: masquerading, and the host's ports that lead into pods."""

    settings: BridgeSettings
    ports: tuple[PortMapping, ...] = ()

    def describe(self) -> str:
        """Return the operation in the kernel's words."""
        subnet = " and ".join(str(one) for one in (self.settings.subnet, self.settings.subnet6) if one)
        leads = "".join(f"; dnat {port} to port {port.container_port}" for port in self.ports)
        return f"nft table inet {self.settings.bridge}: masquerade from {subnet} to elsewhere{leads}"

    def execute(self, context: HostContext, /) -> None:
        """Do it. The table is one for all sandboxes, so it is rendered from all their leases."""
        context.firewall.install(firewall.ruleset(self.settings, context.forwards))


class AcceptForward(Operation[HostContext], frozen=True):
    """Let the bridge's traffic pass where iptables' FORWARD chain is in use, as docker makes it drop."""

    bridge: str

    def describe(self) -> str:
        """Return the operation in the kernel's words."""
        rule = f"-I DOCKER-USER (else FORWARD) -i/-o {self.bridge} -j ACCEPT"
        return f"iptables and ip6tables {rule}, where FORWARD is in use"

    def execute(self, context: HostContext, /) -> None:
        """Do it."""
        context.firewall.accept(self.bridge)


class CreateVeth(Operation[SandboxContext], frozen=True):
    """Make a veth pair: one end is a port of the bridge, the other is born in the sandbox's namespace."""

    host_interface: str
    bridge: str
    interface: str
    mac: str
    mtu: int

    def describe(self) -> str:
        """Return the operation in the kernel's words."""
        return (
            f"RTM_NEWLINK {self.host_interface}: veth, master {self.bridge}, up; "
            f"peer {self.interface} {self.mac} in the sandbox's network namespace"
        )

    def execute(self, context: SandboxContext, /) -> None:
        """Do it. Raises OSError: EEXIST, one of the two names is taken; ENODEV, the bridge is gone."""
        peer = {
            "IFLA_IFNAME": self.interface,
            "IFLA_ADDRESS": self.mac,
            "IFLA_MTU": self.mtu,
            "IFLA_NET_NS_FD": context.netns_fd,
        }
        attributes = {
            "IFLA_IFNAME": self.host_interface,
            "IFLA_MTU": self.mtu,
            "IFLA_MASTER": context.host.index(self.bridge),
            "IFLA_LINKINFO": {"IFLA_INFO_KIND": "veth", "IFLA_INFO_DATA": {"VETH_INFO_PEER": peer}},
        }
        fields = {"flags": IFF_UP, "change": IFF_UP}
        context.host.change(Message("RTM_NEWLINK", fields, attributes, NLM_F_CREATE | NLM_F_EXCL))


class AddAddress(Operation[SandboxContext], frozen=True):
    """Give the sandbox's interface its address."""

    interface: str
    address: IPv4Interface | IPv6Interface

    def describe(self) -> str:
        """Return the operation in the kernel's words."""
        return f"RTM_NEWADDR {self.address} on {self.interface}, in the sandbox"

    def execute(self, context: SandboxContext, /) -> None:
        """Do it."""
        context.inner.change(_newaddr(context.inner.index(self.interface), self.address, NLM_F_EXCL))


class SetUp(Operation[SandboxContext], frozen=True):
    """Set the sandbox's interface up."""

    interface: str

    def describe(self) -> str:
        """Return the operation in the kernel's words."""
        return f"RTM_SETLINK {self.interface}: up, in the sandbox"

    def execute(self, context: SandboxContext, /) -> None:
        """Do it."""
        fields = {"flags": IFF_UP, "change": IFF_UP}
        context.inner.change(Message("RTM_SETLINK", fields, {"IFLA_IFNAME": self.interface}))


class AddRoute(Operation[SandboxContext], frozen=True):
    """Send what the sandbox has no other route for to the bridge."""

    gateway: IPv4Address | IPv6Address

    def describe(self) -> str:
        """Return the operation in the kernel's words."""
        return f"RTM_NEWROUTE default via {self.gateway}, in the sandbox"

    def execute(self, context: SandboxContext, /) -> None:
        """Do it. Raises OSError: ENETUNREACH, no interface that is up has the gateway in its subnet."""
        fields = {
            "family": _family(self.gateway),
            "table": RT_TABLE_MAIN,
            "proto": RTPROT_STATIC,
            "scope": RT_SCOPE_UNIVERSE,
            "type": RTN_UNICAST,
        }
        context.inner.change(
            Message("RTM_NEWROUTE", fields, {"RTA_GATEWAY": str(self.gateway)}, NLM_F_CREATE | NLM_F_EXCL)
        )


class SetHairpin(Operation[SandboxContext], frozen=True):
    """Let the bridge send back through the port that a frame came from: a sandbox may call itself by a host port."""

    host_interface: str

    def describe(self) -> str:
        """Return the operation in the kernel's words."""
        return f"RTM_NEWLINK {self.host_interface}: hairpin mode of the bridge port"

    def execute(self, context: SandboxContext, /) -> None:
        """Do it."""
        port = {"IFLA_INFO_SLAVE_KIND": "bridge", "IFLA_INFO_SLAVE_DATA": {"IFLA_BRPORT_MODE": 1}}
        context.host.change(
            Message("RTM_NEWLINK", attributes={"IFLA_IFNAME": self.host_interface, "IFLA_LINKINFO": port})
        )


class AwaitCarrier(Operation[SandboxContext], frozen=True):
    """Wait until the kernel has noticed that an interface of the host has a carrier.

    It does so a moment after both ends of a veth are up, or the first port of a bridge is. What is sent before is
    dropped, and a lost ARP request is repeated after a whole second. RTM_GETLINK itself makes the kernel look
    (linkwatch_sync_dev, since Linux 6.9).
    """

    interface: str

    def describe(self) -> str:
        """Return the operation in the kernel's words."""
        return f"RTM_GETLINK {self.interface}, until its operstate is up"

    def execute(self, context: SandboxContext, /) -> None:
        """Do it. Raises OSError: ETIMEDOUT, ENODEV."""
        deadline = time.monotonic() + CARRIER_TIMEOUT_S
        while not ((link := context.host.link(self.interface)) and link.operational):
            if link is None:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, "it has no carrier")
            time.sleep(0.001)


def _family(address: IPv4Address | IPv6Address) -> int:
    return AF_INET if address.version == 4 else AF_INET6


def _newaddr(index: int, address: IPv4Interface | IPv6Interface, flag: int) -> Message:
    """Return what adds an address. Nobody else can have it, so IPv6 need not spend a second on looking (nodad)."""
    fields = {"family": _family(address.ip), "prefixlen": address.network.prefixlen, "index": index}
    attributes = {"IFA_LOCAL": str(address.ip), "IFA_ADDRESS": str(address.ip)}
    if address.version == 4:
        attributes["IFA_BROADCAST"] = str(address.network.broadcast_address)
    else:
        fields["flags"] = IFA_F_NODAD
    return Message("RTM_NEWADDR", fields, attributes, NLM_F_CREATE | flag)
