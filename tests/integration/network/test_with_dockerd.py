"""The same beside a real dockerd, with the chains that it makes and the sysctls that it sets."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from minirt.network import bridge
from tests.integration.network.conftest import Host
from tests.integration.network.topology import Namespace
from tests.peers.docker import Dockerd

pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.needs("docker", "nft")]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory for the daemons: short, for sockets' paths are."""
    yield tmp_path / "d"
    shutil.rmtree(tmp_path / "d", ignore_errors=True)


def tagged(host: Host) -> list[str]:
    return [line.split()[1] for line in host.run("iptables-nft -S").splitlines() if "minirt:minirt0" in line]


def dropping(directory: Path) -> closing[Dockerd]:
    """Start a dockerd where nobody forwards yet: only then does it make FORWARD drop."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    return closing(Dockerd(directory, []))


def test_docker_starts_first(host: Host, outside: Namespace, directory: Path) -> None:
    with host.inside(), dropping(directory):
        before = host.state()
        assert "-P FORWARD DROP" in before["iptables"]
        one, two = host.sandbox(), host.sandbox()
        veths = [host.attach("one", one).host_interface]
        got = host.attach("two", two)
        assert tagged(host) == ["DOCKER-USER"] * 3
        with two.listen() as server:
            one.reaches(server, str(got.address.ip))
        with outside.listen() as server:
            assert one.reaches(server, "203.0.113.2") == "203.0.113.1"
        host.detach("one")
        host.detach("two")
        host.run(*(f"ip link delete {veth}" for veth in [*veths, got.host_interface]))
        assert host.state() == before


def test_docker_starts_later_and_again(host: Host, directory: Path) -> None:
    """What it makes drop what is there already passes again after a repair."""
    with host.inside():
        one, two = host.sandbox(), host.sandbox()
        host.attach("one", one)
        second = str(host.attach("two", two).address.ip)
        for turn in range(2):
            with dropping(directory / str(turn)):
                bridge.repair()
                assert tagged(host) == ["DOCKER-USER"] * 3
                with two.listen() as server:
                    one.reaches(server, second)
