"""What attaching a sandbox takes, as a list of operations: pure, so that ``--dry-run`` can print it."""

from collections.abc import Sequence
from ipaddress import IPv4Interface, IPv6Interface

from minirt.linux.operation import Operation
from minirt.network.operations import (
    AcceptForward,
    AddAddress,
    AddRoute,
    AwaitCarrier,
    CreateVeth,
    EnsureBridge,
    ForwardIpv6,
    HostContext,
    InstallNat,
    SandboxContext,
    SetHairpin,
    SetSysctl,
    SetUp,
)
from minirt.network.settings import BridgeSettings, PortMapping, mac_of

INTERFACE = "eth0"
"""The name of every sandbox's own interface, as kubelets and people expect it."""

ID_DIGITS = 64
"""Of the ids that the engine draws."""


Plan = list[Operation[HostContext] | Operation[SandboxContext]]


def plan_attach(
    sandbox_id: str, address: IPv4Interface, settings: BridgeSettings, ports: Sequence[PortMapping] = ()
) -> Plan:
    """Return the steps that attach a sandbox to the bridge under ``address``, and the IPv6 one that goes with it."""
    address6 = settings.interface6(address.ip)
    return [*plan_bridge(settings, ports), *plan_veth(sandbox_id, address, address6, settings, ports)]


def plan_bridge(settings: BridgeSettings, ports: Sequence[PortMapping] = ()) -> list[Operation[HostContext]]:
    """Return the steps on the host. Each leaves alone what is in place already."""
    bridge = settings.bridge
    return [
        EnsureBridge(settings),
        # It stays on when the last sandbox goes: by then others may rely on it.
        SetSysctl("ipv4/ip_forward", "1"),
        # A pod could otherwise announce itself to the host as its IPv6 router (CVE-2020-10749).
        SetSysctl(f"ipv6/conf/{bridge}/accept_ra", "0"),
        *([SetSysctl(f"ipv4/conf/{bridge}/route_localnet", "1")] if ports else []),
        *([ForwardIpv6()] if settings.prefix6 else []),
        InstallNat(settings, tuple(ports)),
        AcceptForward(bridge),
    ]


def plan_veth(
    sandbox_id: str,
    address: IPv4Interface,
    address6: IPv6Interface | None,
    settings: BridgeSettings,
    ports: Sequence[PortMapping] = (),
) -> list[Operation[SandboxContext]]:
    """Return the steps that are one sandbox's own."""
    veth = veth_name(sandbox_id)
    ipv6: list[Operation[SandboxContext]] = []
    if address6 and settings.gateway6:
        ipv6 = [AddAddress(INTERFACE, address6), AddRoute(settings.gateway6.ip)]
    return [
        CreateVeth(veth, settings.bridge, INTERFACE, mac_of(address.ip), settings.mtu),
        *([SetHairpin(veth)] if ports else []),
        AddAddress(INTERFACE, address),
        SetUp(INTERFACE),
        AddRoute(settings.gateway.ip),
        *ipv6,
        AwaitCarrier(veth),
        AwaitCarrier(settings.bridge),
    ]


def veth_name(sandbox_id: str) -> str:
    """Return the name of the host's end of a sandbox's veth pair: 15 characters, as many as the kernel takes.

    It tells the sandbox by the beginning of its id, which was drawn by lot; another's by its hash.
    """
    if len(sandbox_id) == ID_DIGITS and set(sandbox_id) <= set("0123456789abcdef"):
        return f"veth{sandbox_id[:11]}"
    import hashlib  # OpenSSL comes with it: 3 ms

    return "veth" + hashlib.sha256(sandbox_id.encode()).hexdigest()[:11]
