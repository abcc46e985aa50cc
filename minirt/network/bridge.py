"""Attach a sandbox to the bridge, and take it off again.

    attach   lock ─ lease an address ─ bridge, sysctls, nft, iptables: what is missing ─ unlock ─ veth, address, route
    detach   lock ─ unplug the veth ─ with the last lease: rules and bridge ─ give the address back ─ unlock

The first lease brings the bridge and the last takes it away, both under one lock. The veth is made outside of it, so
that sandboxes which start together wait little for each other; its lease, which is there by then, keeps the bridge.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence, Set
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from pathlib import Path

from msgspec import Struct

from minirt import journal
from minirt.errors import StepFailed
from minirt.linux import fds
from minirt.linux.operation import run
from minirt.network import addresses
from minirt.network.addresses import Lease, Memory
from minirt.network.firewall import Firewall, Forward, ruleset
from minirt.network.operations import HostContext, SandboxContext
from minirt.network.plan import INTERFACE, plan_bridge, plan_veth, veth_name
from minirt.network.rtnetlink import IFF_UP, Message, Rtnetlink
from minirt.network.settings import BridgeSettings, PortMapping, mac_of


class Attachment(Struct, frozen=True):
    """What a sandbox has got."""

    interface: str
    address: IPv4Interface
    gateway: IPv4Address
    mac: str
    host_interface: str
    address6: IPv6Interface | None = None


class Held(Struct, frozen=True):
    """The host's side of the network, while this process holds its lock."""

    host: Rtnetlink
    memory: Memory
    firewall: Firewall

    def context(self, settings: BridgeSettings) -> HostContext:
        """Return what the host's half of a plan is executed with."""
        return HostContext(self.host, self.firewall, _forwards(settings))


def attach(
    sandbox_id: str,
    netns: Path,
    inner: socket.socket,
    settings: BridgeSettings | None = None,
    ports: Sequence[PortMapping] = (),
    *,
    ipv6: bool = True,
) -> Attachment:
    """Give the sandbox whose network namespace is pinned at ``netns`` an interface on the bridge, and its addresses.

    ``ipv6``: one of IPv6, too, where the bridge has such; a namespace whose sysctls turn IPv6 off takes none.
    ``inner`` is a NETLINK_ROUTE socket that was opened in that namespace; it stays the caller's. The loopback interface
    is not touched. On any error everything is undone.

    Raises:
        Conflict: the sandbox is attached already, or a host port is taken.
        NetworkError: no address is free, a route of the host collides, nft or iptables refuse.
        StepFailed: the kernel refused a message.
    """
    with _host() as host, fds.closing(_opened(netns)) as netns_fd, contextlib.ExitStack() as undo:
        with _held() as held:
            settings = settings or BridgeSettings()
            lease = addresses.claim(held.memory, sandbox_id, settings, ports, ipv6=ipv6)
            undo.callback(_take_down_one, sandbox_id, _delete)
            run(plan_bridge(settings, ports), held.context(settings))
        context = SandboxContext(host, Rtnetlink(inner), netns_fd)
        run(plan_veth(sandbox_id, lease.interface, lease.interface6, settings, ports), context)
        undo.pop_all()
    mac, veth = mac_of(lease.address), veth_name(sandbox_id)
    return Attachment(INTERFACE, lease.interface, settings.gateway.ip, mac, veth, lease.interface6)


def repair() -> None:
    """Put back what somebody took out of the bridge's rules, as docker may when it starts.

    Nothing happens when no sandbox is on the bridge, and all but nothing (one message to nftables) when no rule of the
    host has changed. ``attach`` does the same. Who lives as long as a sandbox calls this when ``firewall.watch`` tells
    of a change; of many who do, the first one repairs.
    """
    with _held() as held:
        leases = addresses.leases(BridgeSettings().bridge)
        if leases and not held.firewall.untouched:
            ports = [port for lease in leases for port in lease.ports]
            settings = _settings_of(leases)
            run(plan_bridge(settings, ports), held.context(settings))


def detach(sandbox_id: str) -> None:
    """Take the sandbox off the bridge and give its address back. A sandbox that is not attached is no error.

    With the last sandbox the bridge and all its rules go. The veth pair is unplugged, not deleted: that would wait 20
    to 40 ms for the kernel, and the pair goes by itself with the sandbox's namespace.

    Raises:
        NetworkError: nft or iptables refuse; the lease stays, and ``detach`` or ``prune`` later finishes the job.
    """
    if addresses.of_sandbox(sandbox_id):
        _take_down_one(sandbox_id, _unplug)


def prune(live: Set[str] | Callable[[], Set[str]]) -> list[str]:
    """Remove what crashes left of sandboxes that are not in ``live``; return what was removed, a line each.

    A callable is called under the network's lock: a sandbox that is on record before it is attached is then never
    taken for dead, however late it came.
    """
    with _held() as held:
        known = live() if callable(live) else live
        addresses.sweep()
        removed = []
        for lease in addresses.leases():
            if lease.sandbox not in known or lease.boot != held.memory.boot:
                _take_down(held, lease, _delete)
                removed.append(f"address {lease.address} of sandbox {lease.sandbox}")
        return [*removed, *_remove_strays(held, BridgeSettings())]


def _take_down_one(sandbox_id: str, end: Callable[[Rtnetlink, str], None]) -> None:
    with _held() as held:
        if lease := addresses.of_sandbox(sandbox_id):
            _take_down(held, lease, end)


def _take_down(held: Held, lease: Lease, end: Callable[[Rtnetlink, str], None]) -> None:
    """Undo an attach, as much as there is of it; the lease goes last."""
    if lease.boot == held.memory.boot:
        end(held.host, veth_name(lease.sandbox))
        others = [other for other in addresses.leases(lease.bridge) if other != lease]
        if not others:
            _remove_bridge(held, lease.settings)
        elif lease.ports:
            held.firewall.install(ruleset(_settings_of(others), _leads(others)))
            held.firewall.accept(lease.bridge)
    addresses.release(lease)


def _unplug(host: Rtnetlink, name: str) -> None:
    _if_there(host, Message("RTM_SETLINK", {"flags": 0, "change": IFF_UP}, {"IFLA_IFNAME": name, "IFLA_MASTER": 0}))


def _delete(host: Rtnetlink, name: str) -> None:
    _if_there(host, Message("RTM_DELLINK", attributes={"IFLA_IFNAME": name}))


def _if_there(host: Rtnetlink, message: Message) -> None:
    """Send a message about an interface that may be gone, or going with its namespace."""
    try:
        host.change(message)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise StepFailed.from_os_error(f"send {message}", error, stage=journal.stage, step=message.kind) from error


def _remove_bridge(held: Held, settings: BridgeSettings) -> None:
    """Remove the bridge, and its rules meanwhile: either waits for the kernel, 10 to 40 ms."""
    with held.firewall.removing(settings.bridge):
        link = held.host.link(settings.bridge)
        if link and link.mac == settings.mac:
            _delete(held.host, settings.bridge)


def _remove_strays(held: Held, settings: BridgeSettings) -> Iterator[str]:
    """Remove what no lease tells of, as when somebody has removed the leases; yield a line for each thing."""
    bridge = held.host.link(settings.bridge)
    if bridge is None or bridge.mac != settings.mac:
        return
    leases = addresses.leases(settings.bridge)
    known = {veth_name(lease.sandbox) for lease in leases}
    for port in held.host.ports_of(bridge):
        if port.kind == "veth" and port.name not in known:
            _delete(held.host, port.name)
            yield f"interface {port.name}"
    if not leases:
        _remove_bridge(held, settings)
        yield f"bridge {settings.bridge}"


def _forwards(settings: BridgeSettings) -> list[Forward]:
    return _leads(addresses.leases(settings.bridge))


def _settings_of(leases: list[Lease]) -> BridgeSettings:
    """Return the settings of a bridge by what is on it: with IPv6 if any sandbox came when there was some."""
    return next((lease for lease in leases if lease.prefix6), leases[0]).settings


def _leads(leases: list[Lease]) -> list[Forward]:
    return [Forward(port, lease.address, lease.address6) for lease in leases for port in lease.ports]


def _opened(netns: Path) -> int:
    try:
        return os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StepFailed.from_os_error("open a sandbox's network namespace", error, stage=journal.stage) from error


@contextlib.contextmanager
def _host() -> Iterator[Rtnetlink]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as channel:
        yield Rtnetlink(channel)


@contextlib.contextmanager
def _held() -> Iterator[Held]:
    with _host() as host, addresses.locked() as memory:
        firewall = Firewall(memory)
        yield Held(host, memory, firewall)
        firewall.remember()
