"""Host ports that lead into sandboxes: from outside, from the host and its localhost, and from other sandboxes."""

import socket

import pytest

from minirt.errors import Conflict, Unsupported
from minirt.network import addresses
from minirt.network.settings import PortMapping
from tests.integration.network.conftest import Host
from tests.integration.network.topology import Namespace

pytestmark = [pytest.mark.root, pytest.mark.needs("nft")]

WEB = PortMapping(8080, 80)


@pytest.fixture
def web(host: Host) -> Namespace:
    sandbox = host.sandbox()
    host.attach("web", sandbox, WEB)
    return sandbox


def test_from_outside_with_the_callers_own_address(host: Host, outside: Namespace, web: Namespace) -> None:
    with web.listen(port=80) as server:
        assert outside.reaches(server, "203.0.113.1", 8080) == "203.0.113.2"


@pytest.mark.parametrize("address", ["2001:db8::1", "fdcd:7ee:a274::a4d:1"])
def test_by_ipv6(host: Host, outside: Namespace, web: Namespace, address: str) -> None:
    other = host.sandbox()
    host.attach("other", other)
    with web.listen("::", port=80) as server:
        for caller in (host, other, web):
            caller.reaches(server, address, 8080)
        if address == "2001:db8::1":
            assert outside.reaches(server, address, 8080) == "2001:db8::2"


def test_by_ipv6_localhost(host: Host, web: Namespace) -> None:
    """A client that tries localhost's addresses in turn is not kept waiting by the one that leads nowhere."""
    with web.listen("::", port=80) as server, pytest.raises(ConnectionRefusedError):
        host.reaches(server, "::1", 8080)
    with pytest.raises(Unsupported, match=r"never leaves the host .*\(use 127\.0\.0\.1\)"):
        PortMapping(8080, 80, "tcp", "::1")


@pytest.mark.parametrize("address", ["127.0.0.1", "10.77.0.1", "203.0.113.1"])
def test_from_the_host(host: Host, outside: Namespace, web: Namespace, address: str) -> None:
    with web.listen(port=80) as server:
        host.reaches(server, address, 8080)


@pytest.mark.parametrize("address", ["10.77.0.1", "203.0.113.1"])
def test_from_another_sandbox_and_from_itself(host: Host, outside: Namespace, web: Namespace, address: str) -> None:
    other = host.sandbox()
    host.attach("other", other)
    with web.listen(port=80) as server:
        other.reaches(server, address, 8080)
        web.reaches(server, address, 8080)


def test_beside_docker(host: Host, outside: Namespace, web: Namespace) -> None:
    host.run("iptables-nft -P FORWARD DROP")
    host.attach("other", host.sandbox())
    with web.listen(port=80) as server:
        assert outside.reaches(server, "203.0.113.1", 8080) == "203.0.113.2"


def test_udp(host: Host, outside: Namespace) -> None:
    sandbox = host.sandbox()
    host.attach("dns", sandbox, PortMapping(53, 5353, "udp"))
    with (
        sandbox.open_socket(kind=socket.SOCK_DGRAM) as server,
        outside.open_socket(kind=socket.SOCK_DGRAM) as client,
    ):
        server.bind(("0.0.0.0", 5353))
        client.connect(("203.0.113.1", 53))
        client.send(b"who?")
        question, asker = server.recvfrom(16)
        server.sendto(b"me", asker)
        assert (question, client.recv(16)) == (b"who?", b"me")


def test_on_one_address_of_the_host_only(host: Host, outside: Namespace) -> None:
    sandbox = host.sandbox()
    host.attach("web", sandbox, PortMapping(8080, 80, "tcp", "127.0.0.1"))
    with sandbox.listen(port=80) as server:
        host.reaches(server, "127.0.0.1", 8080)
        with pytest.raises(ConnectionRefusedError):
            outside.reaches(server, "203.0.113.1", 8080)


def test_a_sandbox_cannot_reach_the_hosts_localhost(host: Host, web: Namespace) -> None:
    """What route_localnet, which localhost needs, would open (CVE-2020-8558)."""
    web.run("ip route add 127.0.0.2/32 via 10.77.0.1")
    with web.inside():
        for name in ("all", "eth0"):
            with open(f"/proc/sys/net/ipv4/conf/{name}/route_localnet", "w") as file:
                file.write("1")
    web.run("ip address delete 127.0.0.1/8 dev lo", "ip route add 127.0.0.1/32 via 10.77.0.1 src 10.77.0.2")
    with host.listen("127.0.0.1", 9000), web.open_socket() as client:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect(("127.0.0.1", 9000))


def test_a_port_goes_with_its_sandbox(host: Host, web: Namespace) -> None:
    other = host.sandbox()
    host.attach("other", other, PortMapping(8081, 81))
    host.detach("web")
    with web.listen(port=80) as server, pytest.raises(ConnectionRefusedError):
        host.reaches(server, "127.0.0.1", 8080)
    with other.listen(port=81) as server:
        host.reaches(server, "127.0.0.1", 8081)


def test_a_port_that_another_sandbox_has_is_refused(host: Host, web: Namespace) -> None:
    with pytest.raises(Conflict, match=r"cannot map host port 127\.0\.0\.1:8080/tcp: sandbox web has it"):
        host.attach("b", host.sandbox(), PortMapping(8080, 81, "tcp", "127.0.0.1"))
    host.attach("c", host.sandbox(), PortMapping(8080, 81, "udp"))


def test_a_port_that_the_host_listens_on_is_refused(host: Host) -> None:
    with host.listen(port=8080), pytest.raises(Conflict, match=r"cannot map host port \*:8080/tcp: a process"):
        host.attach("b", host.sandbox(), WEB)
    assert addresses.leases() == []


def test_a_port_of_one_family_leaves_the_other_free(host: Host, outside: Namespace) -> None:
    one, two = host.sandbox(), host.sandbox()
    host.attach("one", one, PortMapping(8080, 80, "tcp", "0.0.0.0"))
    host.attach("two", two, PortMapping(8080, 80, "tcp", "2001:db8::1"))
    with one.listen(port=80) as first, two.listen("::", port=80) as second:
        host.reaches(first, "127.0.0.1", 8080)
        outside.reaches(second, "2001:db8::1", 8080)
    with pytest.raises(Conflict, match=r"host port \[::\]:8080/tcp: sandbox two has it"):
        host.attach("three", host.sandbox(), PortMapping(8080, 81, "tcp", "::"))


def test_without_ipv6_there_are_no_ports_of_it(host: Host) -> None:
    with pytest.raises(Unsupported, match="the pod has no IPv6 address"):
        host.attach("a", host.sandbox(), PortMapping(8080, 80, "tcp", "::"), ipv6=False)
    assert addresses.leases() == []


def test_a_host_address_that_is_not_there_is_refused(host: Host) -> None:
    with pytest.raises(Conflict, match=r"203\.0\.113\.9:8080/tcp: Cannot assign requested address"):
        host.attach("b", host.sandbox(), PortMapping(8080, 80, "tcp", "203.0.113.9"))
