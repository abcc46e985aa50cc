"""Beside a docker: FORWARD drops, and frames on a bridge are shown to iptables as well."""

import contextlib
import select
import shutil
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from minirt.errors import NetworkError
from minirt.network import bridge, firewall
from tests.integration.network.conftest import Host
from tests.integration.network.topology import Namespace, family_of

BRIDGE_NF = Path("/proc/sys/net/bridge")
LEGACY_TABLES = Path("/proc/net/ip_tables_names")

pytestmark = [
    pytest.mark.root,
    pytest.mark.needs("nft"),
    pytest.mark.skipif(not shutil.which("iptables-legacy"), reason="iptables: not installed"),
]

DROPPING = ["iptables-nft -P FORWARD DROP"]
LIKE_DOCKER = [
    *DROPPING,
    "iptables-nft -N DOCKER-USER",
    "iptables-nft -A DOCKER-USER -j RETURN",
    "iptables-nft -A FORWARD -j DOCKER-USER",
    "iptables-nft -A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
]
LEGACY = ["iptables-legacy -P FORWARD DROP"]


@pytest.fixture
def frames_shown_to_iptables(host: Host) -> Iterator[None]:
    if not BRIDGE_NF.exists():
        pytest.skip("br_netfilter: this kernel does not have it loaded")
    with host.inside():
        for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
            (BRIDGE_NF / name).write_text("1")
    yield


@pytest.fixture(params=[DROPPING, LIKE_DOCKER, LEGACY], ids=["dropping", "docker", "legacy"])
def filtering(request: pytest.FixtureRequest, host: Host, frames_shown_to_iptables: None) -> None:
    host.run(*request.param, *(line.replace("iptables", "ip6tables") for line in request.param))


def meet(one: Namespace, two: Namespace, address: IPv4Address | IPv6Address) -> str:
    with two.listen("0.0.0.0" if address.version == 4 else "::") as server:
        return one.reaches(server, str(address))


def cannot_meet(one: Namespace, address: IPv4Address | IPv6Address) -> None:
    with one.open_socket(family_of(str(address))) as client:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect((str(address), 8080))


def rules(host: Host) -> str:
    legacy = host.run("iptables-legacy -S") if LEGACY_TABLES.read_text() else ""
    return host.run("iptables-nft -S") + legacy


def rules6(host: Host) -> str:
    return host.run("ip6tables-nft -S") + host.run("ip6tables-legacy -S")


@pytest.mark.usefixtures("filtering")
def test_sandboxes_reach_each_other_and_the_outside(host: Host, outside: Namespace) -> None:
    one, two = host.sandbox(), host.sandbox()
    host.attach("one", one)
    second = host.attach("two", two)
    assert second.address6
    meet(one, two, second.address.ip)
    meet(one, two, second.address6.ip)
    assert meet(one, outside, IPv4Address("203.0.113.2")) == "203.0.113.1"
    assert meet(one, outside, IPv6Address("2001:db8::2")) == "2001:db8::1"


@pytest.mark.usefixtures("filtering")
def test_the_outside_does_not_get_in(host: Host, outside: Namespace) -> None:
    sandbox = host.sandbox()
    got = host.attach("a", sandbox)
    assert got.address6
    outside.run("ip route add 10.77.0.0/16 via 203.0.113.1", "ip route add fdcd:7ee:a274::/96 via 2001:db8::1")
    with sandbox.listen("::"):
        cannot_meet(outside, got.address.ip)
        cannot_meet(outside, got.address6.ip)


@pytest.mark.usefixtures("filtering")
def test_rules_go_with_the_last_sandbox(host: Host) -> None:
    with host.inside():
        before, before6 = rules(host), rules6(host)
        for name in ("a", "b"):
            host.attach(name, host.sandbox())
        assert rules(host).count("minirt:minirt0") == rules6(host).count("minirt:minirt0") == 3
        host.detach("a")
        assert rules(host).count("minirt:minirt0") == 3
        host.detach("b")
        assert (rules(host), rules6(host)) == (before, before6)


@pytest.mark.usefixtures("filtering")
def test_rules_that_somebody_removed_are_put_back(host: Host) -> None:
    """By ``repair`` and by the next attach; without them, nothing passes: they are what makes it pass."""
    one, two = host.sandbox(), host.sandbox()
    host.attach("one", one)
    second = host.attach("two", two).address.ip
    for put_back in (bridge.repair, lambda: host.attach("three", host.sandbox())):
        with host.inside():
            lines = firewall.to_remove(rules(host), "minirt0")
            legacy = "legacy" if LEGACY_TABLES.read_text() else "nft"
            host.run(*(f"iptables-{legacy} {line}" for line in lines))
            cannot_meet(one, second)
            put_back()
        meet(one, two, second)


def test_docker_that_comes_later_is_noticed(host: Host, frames_shown_to_iptables: None) -> None:
    one, two = host.sandbox(), host.sandbox()
    host.attach("one", one)
    second = host.attach("two", two).address.ip
    assert "minirt:" not in rules(host)
    host.run(*LIKE_DOCKER)
    with host.inside():
        bridge.repair()
    meet(one, two, second)
    host.detach("one")
    host.detach("two")
    assert "minirt:" not in rules(host)


def test_rules_move_to_dockers_chain_when_there_is_one(host: Host) -> None:
    host.run(*DROPPING)
    host.attach("a", host.sandbox())
    assert rules(host).count("-A FORWARD") == 3
    host.run(*LIKE_DOCKER)
    host.attach("b", host.sandbox())
    assert [line.split()[1] for line in rules(host).splitlines() if "minirt:" in line] == ["DOCKER-USER"] * 3


def test_a_flushed_ruleset_is_restored(host: Host, outside: Namespace) -> None:
    sandbox = host.sandbox()
    host.attach("a", sandbox)
    host.run("nft flush ruleset")
    with host.inside():
        bridge.repair()
    assert meet(sandbox, outside, IPv4Address("203.0.113.2")) == "203.0.113.1"


def test_when_all_is_in_place_nobody_is_asked(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.run(*LIKE_DOCKER)
    host.attach("a", host.sandbox())
    monkeypatch.setattr(firewall, "SEARCH", "/nonexistent")
    host.attach("b", host.sandbox())
    with host.inside():
        bridge.repair()


def test_where_nothing_is_filtered_iptables_is_left_alone(host: Host) -> None:
    before = host.state()["iptables"], host.run("nft list tables")
    host.attach("a", host.sandbox())
    assert (host.state()["iptables"], host.run("nft list tables")) == (before[0], "table inet minirt0\n")


def test_without_nft_the_error_says_so_and_all_is_undone(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    before = host.state()
    with monkeypatch.context() as bare:
        bare.setattr(firewall, "SEARCH", "/nonexistent")
        with pytest.raises(NetworkError, match=r"cannot run nft: it is not installed \(install nftables\)"):
            host.attach("a", host.sandbox())
    assert host.state() == before


def test_a_change_of_rules_is_told_and_repaired_once(host: Host) -> None:
    host.attach("a", host.sandbox())
    with host.inside(), firewall.watch() as watcher:
        assert not select.select([watcher], [], [], 0)[0]
        host.run(*LIKE_DOCKER)
        changes = 0
        while select.select([watcher], [], [], 0.2)[0]:
            with contextlib.suppress(BlockingIOError):
                while watcher.recv(16):
                    pass
            before = firewall.generation()
            bridge.repair()
            changes += firewall.generation() != before
        assert changes == 1
    assert rules(host).count("-A DOCKER-USER -") == 4
