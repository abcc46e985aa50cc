"""Many at once, and death at any step: no address is given twice, and prune removes whatever is left."""

import itertools
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from minirt import journal
from minirt.errors import NetworkError
from minirt.network import addresses, bridge
from minirt.network.settings import PortMapping
from tests.integration.network.conftest import Host
from tests.integration.network.topology import Namespace, ended, fork

pytestmark = [pytest.mark.root, pytest.mark.needs("nft")]

WEB = PortMapping(8080, 80)


def test_twenty_processes_attach_at_once(host: Host) -> None:
    sandboxes = [host.sandbox() for _ in range(20)]
    children = [fork(lambda n=n: host.attach(f"s{n}", sandboxes[n])) for n in range(20)]  # type: ignore[misc]
    assert [ended(child) for child in children] == [0] * 20
    leases = addresses.leases()
    assert sorted(lease.sandbox for lease in leases) == sorted(f"s{n}" for n in range(20))
    with sandboxes[0].listen() as server:
        first = next(str(lease.address) for lease in leases if lease.sandbox == "s0")
        for sandbox in sandboxes[1:]:
            sandbox.reaches(server, first)
    children = [fork(lambda n=n: host.detach(f"s{n}")) for n in range(20)]  # type: ignore[misc]
    assert [ended(child) for child in children] == [0] * 20
    assert "minirt0" not in "".join(host.state().values())


def test_the_first_comes_while_the_last_goes(host: Host) -> None:
    """Bridge and rules come and go again and again, and everybody who is attached has them."""
    before = host.state()

    def come_and_go(number: int) -> None:
        with Namespace() as sandbox:
            for turn in range(3):
                got = host.attach(f"s{number}-{turn}", sandbox)
                with host.listen(str(got.gateway), 9000 + number) as server:
                    sandbox.reaches(server, str(got.gateway), 9000 + number)
                host.detach(f"s{number}-{turn}")
                sandbox.run("ip link delete eth0")

    children = [fork(lambda n=n: come_and_go(n)) for n in range(5)]  # type: ignore[misc]
    assert [ended(child) for child in children] == [0] * 5
    host.wait_until(lambda: host.state() == before)


def die_at(number: int, *, after: bool) -> None:
    """Have this process kill itself before or after the step of that number that it takes from now on."""
    real, steps = journal.step, itertools.count()

    def step(name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        now = next(steps) == number
        if now and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(name, function, *args, **kwargs)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    journal.step = step


def deaths(work: Callable[[], object], *, after: bool) -> Any:
    """Yield after each death of a child that does ``work``, one step later each time, until it survives."""
    for number in itertools.count():

        def die(number: int = number) -> None:
            die_at(number, after=after)
            work()

        if (status := ended(fork(die))) == 0:
            return
        assert status == -signal.SIGKILL
        yield number


@pytest.fixture
def beside_docker(host: Host) -> None:
    host.run("iptables-nft -P FORWARD DROP", "iptables-nft -N DOCKER-USER", "iptables-nft -A FORWARD -j DOCKER-USER")


@pytest.mark.usefixtures("beside_docker")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_prune_finishes_what_a_killed_attach_began(host: Host, after: bool) -> None:
    before = host.state()
    sandbox = host.sandbox()
    for step in deaths(lambda: host.attach("a", sandbox, WEB), after=after):
        removed = host.prune()
        assert host.state() == before, f"died at step {step}, prune removed {removed}"
        assert addresses.leases() == []
    assert step >= 10
    assert [line.partition(" of ")[2] for line in host.prune()] == ["sandbox a"]


@pytest.mark.usefixtures("beside_docker")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_detach_finishes_what_a_killed_detach_began(host: Host, after: bool) -> None:
    before = host.state()
    sandbox = host.sandbox()
    host.attach("a", sandbox, WEB)
    for step in deaths(lambda: host.detach("a"), after=after):
        host.detach("a")
        sandbox.run("ip link delete eth0")
        assert host.state() == before, f"died at step {step}"
        assert addresses.leases() == []
        host.attach("a", sandbox, WEB)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_death_hurts_no_neighbour(host: Host, after: bool) -> None:
    living = host.sandbox()
    address = str(host.attach("living", living).address.ip)
    sandbox = host.sandbox()
    with living.listen() as server:
        for _ in deaths(lambda: host.attach("a", sandbox), after=after):
            host.prune("living")
            host.reaches(server, address)
            assert [lease.sandbox for lease in addresses.leases()] == ["living"]


def test_prune_spares_the_living_that_it_asks_for_late(host: Host) -> None:
    """Who is on record before it attaches is in the set that is read under the lock."""
    host.attach("late", host.sandbox())
    with host.inside():
        assert bridge.prune(lambda: {lease.sandbox for lease in addresses.leases()}) == []
    assert [lease.sandbox for lease in addresses.leases()] == ["late"]


def test_prune_removes_a_bridge_that_nobody_remembers(host: Host) -> None:
    before = host.state()
    got = host.attach("a", host.sandbox())
    for file in addresses.directory().iterdir():
        file.unlink()
    assert host.prune() == [f"interface {got.host_interface}", "bridge minirt0"]
    assert host.state() == before


def test_another_boots_lease_is_void(host: Host) -> None:
    host.attach("a", host.sandbox())
    lease = addresses.directory() / "10.77.0.2"
    lease.write_bytes(lease.read_bytes().replace(addresses.leases()[0].boot.encode(), b"another boot"))
    host.attach("b", host.sandbox())
    assert [lease.sandbox for lease in addresses.leases()] == ["b"]


def test_a_lease_that_cannot_be_read_is_named(host: Host) -> None:
    host.attach("a", host.sandbox())
    lease = addresses.directory() / "10.77.0.2"
    whole = lease.read_bytes()
    lease.write_text("{")
    with pytest.raises(NetworkError, match=r"cannot read the lease .*10\.77\.0\.2: .*remove the file"):
        host.attach("b", host.sandbox())
    lease.write_bytes(whole)
