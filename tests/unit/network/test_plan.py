"""Plans are pure: what is decided can be read without root."""

import subprocess
import sys
from ipaddress import IPv4Interface, IPv4Network, IPv6Network

import pytest

from minirt.network.plan import plan_attach, veth_name
from minirt.network.settings import BridgeSettings, PortMapping

ADDRESS = IPv4Interface("10.77.0.9/16")
SETTINGS = BridgeSettings("minirt0", IPv4Network("10.77.0.0/16"), prefix6=None)
DUAL = BridgeSettings("minirt0", IPv4Network("10.77.0.0/16"), prefix6=IPv6Network("fd00:1::/96"))


def test_the_plan_reads_as_the_kernel_will_hear_it() -> None:
    veth = veth_name("web")
    assert [operation.describe() for operation in plan_attach("web", ADDRESS, SETTINGS)] == [
        "RTM_NEWLINK minirt0: bridge, up, unless it is there; RTM_NEWADDR 10.77.0.1/16 on minirt0",
        "write 1 to /proc/sys/net/ipv4/ip_forward",
        "write 0 to /proc/sys/net/ipv6/conf/minirt0/accept_ra",
        "nft table inet minirt0: masquerade from 10.77.0.0/16 to elsewhere",
        "iptables and ip6tables -I DOCKER-USER (else FORWARD) -i/-o minirt0 -j ACCEPT, where FORWARD is in use",
        f"RTM_NEWLINK {veth}: veth, master minirt0, up; peer eth0 0a:4d:0a:4d:00:09 in the sandbox's network namespace",
        "RTM_NEWADDR 10.77.0.9/16 on eth0, in the sandbox",
        "RTM_SETLINK eth0: up, in the sandbox",
        "RTM_NEWROUTE default via 10.77.0.1, in the sandbox",
        f"RTM_GETLINK {veth}, until its operstate is up",
        "RTM_GETLINK minirt0, until its operstate is up",
    ]


def test_host_ports_add_their_steps() -> None:
    without = plan_attach("web", ADDRESS, SETTINGS)
    lines = [operation.describe() for operation in plan_attach("web", ADDRESS, SETTINGS, [PortMapping(8080, 80)])]
    assert [line for line in lines if line not in [operation.describe() for operation in without]] == [
        "write 1 to /proc/sys/net/ipv4/conf/minirt0/route_localnet",
        "nft table inet minirt0: masquerade from 10.77.0.0/16 to elsewhere; dnat *:8080/tcp to port 80",
        f"RTM_NEWLINK {veth_name('web')}: hairpin mode of the bridge port",
    ]


def test_ipv6_adds_its_steps() -> None:
    without = [operation.describe() for operation in plan_attach("web", ADDRESS, SETTINGS)]
    lines = [operation.describe() for operation in plan_attach("web", ADDRESS, DUAL)]
    gateways = "10.77.0.1/16 and fd00:1::a4d:1/112"
    conf = "/proc/sys/net/ipv6/conf"
    assert [line for line in lines if line not in without] == [
        f"RTM_NEWLINK minirt0: bridge, up, unless it is there; RTM_NEWADDR {gateways} on minirt0",
        f"write 2 to {conf}/*/accept_ra where it is 1, then 1 to {conf}/all/forwarding, unless it is 1",
        "nft table inet minirt0: masquerade from 10.77.0.0/16 and fd00:1::a4d:0/112 to elsewhere",
        "RTM_NEWADDR fd00:1::a4d:9/112 on eth0, in the sandbox",
        "RTM_NEWROUTE default via fd00:1::a4d:1, in the sandbox",
    ]


@pytest.mark.parametrize("sandbox_id", ["a", "A" * 128, "pod.with-every_kind.1"])
def test_any_sandbox_id_becomes_an_interface_name(sandbox_id: str) -> None:
    assert len(veth_name(sandbox_id).encode()) == 15
    assert veth_name(sandbox_id) != veth_name(sandbox_id + "x")


def test_planning_imports_no_pyroute2_and_spawns_nothing() -> None:
    code = """
import sys
from ipaddress import IPv4Interface
from minirt.network import bridge, plan, settings
plan.plan_attach("a", IPv4Interface("10.77.0.2/16"), settings.BridgeSettings())
print([name for name in sys.modules if name.split(".")[0] in ("pyroute2", "asyncio", "subprocess")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
