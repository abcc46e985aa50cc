"""What people write in MINIRT_BRIDGE and MINIRT_SUBNET, and the ports they map."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network

import pytest

from minirt.errors import InvalidInput
from minirt.network.settings import BridgeSettings, PortMapping, mac_of


def test_the_environment_is_read_when_settings_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIRT_BRIDGE", "br-test")
    monkeypatch.setenv("MINIRT_SUBNET", "192.168.7.0/24")
    settings = BridgeSettings()
    assert (settings.bridge, settings.gateway) == ("br-test", IPv4Interface("192.168.7.1/24"))


def test_the_default_is_neither_dockers_nor_podmans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINIRT_SUBNET", raising=False)
    for theirs in ("172.17.0.0/16", "10.88.0.0/16"):
        assert not BridgeSettings().subnet.overlaps(IPv4Network(theirs))


@pytest.mark.parametrize("name", ["", "sixteen-letters-", "a/b", "a b", "..", 'a"b', "a;b", "br\n"])
def test_a_bridge_needs_a_name_for_an_interface(name: str) -> None:
    with pytest.raises(InvalidInput, match="name a bridge"):
        BridgeSettings(bridge=name)


@pytest.mark.parametrize("subnet", ["10.77.0.1/16", "10.77/16", "fd00::/64", "", "10.77.0.0/33"])
def test_a_subnet_must_be_one(subnet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIRT_SUBNET", subnet)
    with pytest.raises(InvalidInput, match=r"cannot read MINIRT_SUBNET: .*\(write it like 10\.77\.0\.0/16\)"):
        BridgeSettings()


@pytest.mark.parametrize("prefix", [31, 32])
def test_a_subnet_must_have_room(prefix: int) -> None:
    with pytest.raises(InvalidInput, match="no address for a pod"):
        BridgeSettings(subnet=IPv4Network(f"10.77.0.0/{prefix}"))


def test_an_ipv6_address_is_the_prefix_and_the_ipv4_address() -> None:
    settings = BridgeSettings("minirt0", IPv4Network("10.77.4.0/24"), prefix6=IPv6Network("fd00:1::/96"))
    assert settings.subnet6 == IPv6Network("fd00:1::a4d:400/120")
    assert str(settings.gateway6) == "fd00:1::a4d:401/120"
    with pytest.raises(InvalidInput, match="use a /96"):
        BridgeSettings(prefix6=IPv6Network("fd00:1::/64"))


def test_which_families_collide() -> None:
    both, four, six = PortMapping(80, 80), PortMapping(80, 80, "tcp", "0.0.0.0"), PortMapping(80, 80, "tcp", "::")
    assert both.collides_with(four)
    assert six.collides_with(both)
    assert not four.collides_with(six)
    assert str(six) == "[::]:80/tcp"


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_must_be_one(port: int) -> None:
    with pytest.raises(InvalidInput, match="use 1 to 65535"):
        PortMapping(port, 80)
    with pytest.raises(InvalidInput, match="use 1 to 65535"):
        PortMapping(80, port)


def test_which_ports_collide() -> None:
    web = PortMapping(80, 8080)
    local = PortMapping(80, 8081, "tcp", "127.0.0.1")
    other = PortMapping(80, 8082, "tcp", "192.0.2.1")
    assert web.collides_with(local)
    assert local.collides_with(web)
    assert not local.collides_with(other)
    assert not web.collides_with(PortMapping(80, 8080, "udp"))
    assert not web.collides_with(PortMapping(81, 8080))


def test_a_mac_is_its_addresss_and_locally_administered() -> None:
    assert mac_of(IPv4Address("10.77.255.1")) == "0a:4d:0a:4d:ff:01"
    assert int("0a", 16) & 0b11 == 0b10
