"""Sandboxes on the bridge reach each other, their host and the outside; afterwards nothing is left."""

import asyncio
import os
import socket
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from minirt.engine import podnetwork
from minirt.errors import Conflict, InvalidInput, NetworkError, StepFailed
from minirt.network import addresses, bridge
from minirt.network.settings import BridgeSettings, range_file
from tests.integration.network.conftest import Host
from tests.integration.network.topology import Namespace

pytestmark = [pytest.mark.root, pytest.mark.needs("nft")]

DATAGRAM = socket.SOCK_DGRAM
SMALL = BridgeSettings("small0", IPv4Network("10.99.0.0/29"))


def test_says_what_the_sandbox_got(host: Host) -> None:
    sandbox = host.sandbox()
    got = host.attach("a", sandbox)
    assert (got.interface, got.address) == ("eth0", IPv4Interface("10.77.0.2/16"))
    assert (got.gateway, got.mac) == (IPv4Address("10.77.0.1"), "0a:4d:0a:4d:00:02")
    assert f"link/ether {got.mac}" in sandbox.run("ip link show eth0")
    assert sandbox.run("ip -4 -o address show eth0").split()[3] == "10.77.0.2/16"
    assert sandbox.run("ip route").splitlines()[0].startswith("default via 10.77.0.1 dev eth0")
    assert "master minirt0" in host.run(f"ip link show {got.host_interface}")


def test_two_sandboxes_reach_each_other(host: Host) -> None:
    one, two = host.sandbox(), host.sandbox()
    first, second = host.attach("one", one), host.attach("two", two)
    with two.listen("::") as server:
        assert one.reaches(server, str(second.address.ip)) == f"::ffff:{first.address.ip}"
        assert one.reaches(server, str(second.address6.ip)) == str(first.address6.ip)


def test_ipv6_is_there_at_once_and_goes_with_the_ipv4_address(host: Host) -> None:
    sandbox = host.sandbox()
    assert str(host.attach("a", sandbox).address6) == "fdcd:7ee:a274::a4d:2/112"
    assert "tentative" not in sandbox.run("ip -6 address show eth0 scope global")
    assert sandbox.run("ip -6 route show default").startswith("default via fdcd:7ee:a274::a4d:1 dev eth0")


def test_a_router_goes_on_learning_its_own_routes(host: Host) -> None:
    host.run("ip link add lan0 type bridge")
    read = "cat /proc/sys/net/ipv6/conf/lan0/accept_ra /proc/sys/net/ipv6/conf/all/forwarding"
    assert host.run(read) == "1\n0\n"
    host.attach("a", host.sandbox())
    assert host.run(read) == "2\n1\n"


@pytest.mark.parametrize("how", ["none", "the host", "the sandbox"])
def test_without_ipv6_it_goes_on_with_ipv4(host: Host, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "none":
        monkeypatch.setenv("MINIRT_IPV6_PREFIX", "none")
    if how == "the host":
        host.run("sysctl -q -w net.ipv6.conf.default.disable_ipv6=1")
    sandbox = host.sandbox()
    got = host.attach("a", sandbox, ipv6=how != "the sandbox")
    assert got.address6 is None
    assert sandbox.run("ip -6 address show eth0 scope global") == ""
    with sandbox.listen() as server:
        host.reaches(server, str(got.address.ip))


def test_a_sandbox_and_its_host_reach_each_other(host: Host) -> None:
    sandbox = host.sandbox()
    got = host.attach("a", sandbox)
    with host.listen() as server:
        assert sandbox.reaches(server, str(got.gateway)) == str(got.address.ip)
    with sandbox.listen() as server:
        assert host.reaches(server, str(got.address.ip)) == str(got.gateway)


def test_the_first_packet_arrives(host: Host) -> None:
    """Nothing is dropped for want of a carrier: a lost ARP request alone would cost a second."""
    one, two = host.sandbox(), host.sandbox()
    got = {sandbox: str(host.attach(name, sandbox).address.ip) for name, sandbox in {"one": one, "two": two}.items()}
    for sender, receiver in ((one, two), (host, two), (host, one)):
        with receiver.open_socket(kind=DATAGRAM) as server, sender.open_socket(kind=DATAGRAM) as client:
            server.bind(("0.0.0.0", 5000))
            server.settimeout(0.5)
            client.sendto(b"first", (got[receiver], 5000))
            assert server.recv(16) == b"first"


def test_the_outside_sees_the_host_and_not_the_pod(host: Host, outside: Namespace) -> None:
    sandbox = host.sandbox()
    host.attach("a", sandbox)
    with outside.listen("::") as server:
        assert sandbox.reaches(server, "203.0.113.2") == "::ffff:203.0.113.1"
        assert sandbox.reaches(server, "2001:db8::2") == "2001:db8::1"


def test_detach_leaves_nothing(host: Host, outside: Namespace) -> None:
    before = host.state()
    sandboxes = {name: host.sandbox() for name in ("a", "b")}
    veths = [host.attach(name, sandbox).host_interface for name, sandbox in sandboxes.items()]
    assert all(veth in host.state()["links"] for veth in veths)
    host.detach("a")
    assert "minirt0" in host.state()["links"]
    host.detach("b")
    assert "minirt0" not in host.state()["links"]
    assert addresses.leases() == []
    for veth in veths:
        host.run(f"ip link delete {veth}")
    assert host.state() == before


def test_a_detached_sandbox_is_cut_off_at_once(host: Host) -> None:
    one, two = host.sandbox(), host.sandbox()
    host.attach("one", one)
    second = host.attach("two", two)
    with two.listen() as server, one.open_socket() as client:
        host.detach("one")
        client.settimeout(0.2)
        with pytest.raises((TimeoutError, OSError)):
            client.connect((str(second.address.ip), 8080))
        assert host.reaches(server, str(second.address.ip))


def test_detach_again_or_of_nobody_is_no_error(host: Host) -> None:
    host.attach("a", host.sandbox())
    host.detach("a")
    host.detach("a")
    host.detach("nobody")


def test_the_sandboxes_end_of_the_namespace_takes_the_veth_along(host: Host) -> None:
    with Namespace() as sandbox:
        veth = host.attach("a", sandbox).host_interface
        host.detach("a")
        assert veth in host.state()["links"]
    host.wait_until(lambda: veth not in host.state()["links"])


def test_a_second_attach_is_refused_and_changes_nothing(host: Host) -> None:
    sandbox = host.sandbox()
    got = host.attach("a", sandbox)
    with pytest.raises(Conflict, match=r"cannot attach sandbox a: it has 10\.77\.0\.2 already"):
        host.attach("a", host.sandbox())
    with sandbox.listen() as server:
        assert host.reaches(server, str(got.address.ip))


def test_a_failed_attach_is_undone(host: Host) -> None:
    before = host.state()
    taken = host.sandbox()
    taken.run("ip link add eth0 type bridge")
    with pytest.raises(StepFailed, match=r"RTM_NEWLINK veth.*: File exists"):
        host.attach("a", taken)
    assert host.state() == before
    assert addresses.leases() == []
    host.attach("a", host.sandbox())


def test_a_netlink_socket_of_the_wrong_namespace_is_undone(host: Host) -> None:
    before = host.state()
    with host.netlink() as wrong, host.inside(), pytest.raises(StepFailed, match="in the sandbox: No such device"):
        bridge.attach("a", host.sandbox().path, wrong)
    assert host.state() == before


def test_a_missing_namespace_is_refused(host: Host) -> None:
    before = host.state()
    gone = pytest.raises(StepFailed, match=r"network namespace: No such file or directory on /run/no/such/netns")
    with host.netlink() as inner, host.inside(), gone:
        bridge.attach("a", Path("/run/no/such/netns"), inner)
    assert host.state() == before


@pytest.mark.parametrize("route", ["10.77.3.0/24", "10.0.0.0/8"])
def test_a_colliding_route_is_refused_by_name(host: Host, route: str) -> None:
    host.run("ip link add lan0 type bridge", "ip link set lan0 up", f"ip route add {route} dev lan0")
    with pytest.raises(NetworkError, match=f"10.77.0.0/16 overlaps the host's route to {route}.*MINIRT_SUBNET"):
        host.attach("a", host.sandbox())
    assert "minirt0" not in host.state()["links"]


def test_a_colliding_route_of_ipv6_is_refused_by_name(host: Host) -> None:
    host.run("ip link add lan0 type bridge", "ip link set lan0 up", "ip route add fdcd:7ee:a274::/48 dev lan0")
    with pytest.raises(NetworkError, match=r"overlaps the host's route to fdcd:7ee:a274::/48.*MINIRT_IPV6_PREFIX"):
        host.attach("a", host.sandbox())
    assert "minirt0" not in host.state()["links"]


def test_somebody_elses_bridge_is_not_touched(host: Host) -> None:
    host.run("ip link add minirt0 type bridge")
    with pytest.raises(NetworkError, match=r"minirt did not make.*MINIRT_BRIDGE"):
        host.attach("a", host.sandbox())
    assert "minirt0" in host.state()["links"]
    assert addresses.leases() == []


def test_an_exhausted_subnet_says_so(host: Host) -> None:
    for number in range(5):
        host.attach(f"s{number}", host.sandbox(), settings=SMALL)
    with pytest.raises(NetworkError, match=r"all 5 of 10\.99\.0\.0/29 are taken.*MINIRT_SUBNET"):
        host.attach("one too many", host.sandbox(), settings=SMALL)


def test_a_kubelets_range_is_taken_while_no_pod_has_another(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    with host.inside():
        host.attach("early", host.sandbox())
        podnetwork.take_range("10.99.1.0/24")
        assert "pods have addresses of 10.77.0.0/16" in caplog.text
        host.detach("early")
        podnetwork.take_range("")
        podnetwork.take_range("10.99.1.0/24,fd99:0:0:1::/64")
    got = host.attach("late", host.sandbox())
    range_file().unlink()
    assert (str(got.address), str(got.address6)) == ("10.99.1.2/24", "fd99::1:0:0:a63:102/120")
    with pytest.raises(InvalidInput, match="cannot use the pods' range"):
        podnetwork.take_range("10.99.1.1/24")


def test_the_users_range_wins_over_a_kubelets(
    host: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIRT_SUBNET", "10.98.0.0/16")
    podnetwork.take_range("10.99.1.0/24")
    assert "MINIRT_SUBNET or MINIRT_IPV6_PREFIX is set" in caplog.text
    assert str(host.attach("a", host.sandbox()).address) == "10.98.0.2/16"


def test_a_freed_address_is_the_last_to_be_given_again(host: Host) -> None:
    got = []
    for number in range(6):
        got.append(str(host.attach(f"s{number}", host.sandbox(), settings=SMALL).address.ip))
        host.detach(f"s{number}")
    assert got == ["10.99.0.2", "10.99.0.3", "10.99.0.4", "10.99.0.5", "10.99.0.6", "10.99.0.2"]


def test_two_bridges_at_a_time(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sandbox is detached from its own bridge, whatever the environment says by then."""
    one, two = host.sandbox(), host.sandbox()
    host.attach("one", one)
    with monkeypatch.context() as environment:
        environment.setenv("MINIRT_BRIDGE", "other0")
        environment.setenv("MINIRT_SUBNET", "10.99.0.0/24")
        assert host.attach("two", two).address == IPv4Interface("10.99.0.2/24")
    host.detach("two")
    assert host.state()["links"].split(", ")[1] == "minirt0"
    assert "other0" not in host.state()["links"] + host.state()["nftables"]


def test_the_socket_stays_the_callers(host: Host) -> None:
    sandbox = host.sandbox()
    with sandbox.netlink() as inner, host.inside():
        bridge.attach("a", sandbox.path, inner)
        assert inner.fileno() > 0
        assert inner.family == socket.AF_NETLINK


def test_it_works_inside_a_running_event_loop(host: Host) -> None:
    """gRPC's server runs one; pyroute2's own sockets cannot be used there."""

    async def serve() -> None:
        host.attach("a", host.sandbox())
        host.detach("a")

    asyncio.run(serve())
    assert len(os.listdir("/proc/self/task")) == 1
