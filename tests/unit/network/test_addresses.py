"""Leases are files: no root is needed to hand out addresses."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from minirt.errors import Conflict, NetworkError
from minirt.network import addresses
from minirt.network.settings import BridgeSettings, PortMapping

TINY = BridgeSettings("minirt0", IPv4Network("10.9.0.0/29"))
BIG = BridgeSettings("minirt0", IPv4Network("10.77.0.0/16"))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINIRT_STATE", str(tmp_path))
    return tmp_path / "network"


def claim(name: str, settings: BridgeSettings = TINY, *ports: PortMapping) -> addresses.Lease:
    with addresses.locked() as memory:
        return addresses.claim(memory, name, settings, ports)


def test_a_lease_survives_the_disk(state: Path) -> None:
    port = PortMapping(40080, 80, "udp", "127.0.0.1")
    lease = claim("a", BIG, port)
    assert addresses.leases() == [lease]
    assert addresses.of_sandbox("a") == lease
    assert lease.settings == BIG
    assert str(lease.interface) == "10.77.0.2/16"
    assert sorted(path.name for path in state.iterdir()) == ["10.77.0.2", "bridge.lock"]


def test_neither_network_nor_bridge_nor_broadcast_is_given() -> None:
    given_out = [str(claim(f"s{n}").address) for n in range(5)]
    assert given_out == [f"10.9.0.{n}" for n in range(2, 7)]
    with pytest.raises(NetworkError, match=r"all 5 of 10\.9\.0\.0/29"):
        claim("one more")


def test_a_freed_address_waits_its_turn() -> None:
    first = claim("a")
    addresses.release(first)
    addresses.release(first)
    assert [str(claim(f"s{n}").address) for n in range(5)] == [f"10.9.0.{n}" for n in (3, 4, 5, 6, 2)]


def test_the_turn_starts_anew_in_another_subnet() -> None:
    claim("a", BIG)
    assert str(claim("b", TINY).address) == "10.9.0.2"


def test_one_sandbox_has_one_address() -> None:
    claim("a")
    with pytest.raises(Conflict, match=r"cannot attach sandbox a: it has 10\.9\.0\.2 already \(detach it first\)"):
        claim("a")


def test_a_taken_file_is_never_overwritten(state: Path) -> None:
    state.mkdir()
    lease = claim("a")
    with pytest.raises(FileExistsError):
        addresses._place(lease)


def test_leases_of_another_boot_are_void(state: Path) -> None:
    claim("a")
    file = state / "10.9.0.2"
    file.write_bytes(file.read_bytes().replace(addresses.leases()[0].boot.encode(), b"yesterday"))
    assert [lease.sandbox for lease in addresses.leases()] == ["a"]
    claim("b")
    assert [lease.sandbox for lease in addresses.leases()] == ["b"]


@pytest.mark.parametrize("text", [b"", b"{", b'{"boot": 1}', b"\xff\x00", b"[]"])
def test_a_torn_memory_is_no_memory(state: Path, text: bytes) -> None:
    claim("a")
    (state / "bridge.lock").write_bytes(text)
    assert str(claim("b").address) == "10.9.0.3"


@pytest.mark.parametrize("text", [b"", b"{", b'{"address": "no"}', b'{"sandbox": "a"}'])
def test_a_lease_that_cannot_be_read_is_named(state: Path, text: bytes) -> None:
    claim("a")
    (state / "10.9.0.2").write_bytes(text)
    with pytest.raises(NetworkError, match=r"cannot read the lease .*/10\.9\.0\.2: .*remove the file"):
        addresses.leases()


def test_what_a_crash_left_of_a_lease_is_swept_and_harmless(state: Path) -> None:
    state.mkdir()
    (state / ".10.9.0.2").write_text("{")
    assert addresses.leases() == []
    assert str(claim("a").address) == "10.9.0.2"
    (state / ".10.9.0.3").write_text("{")
    addresses.sweep()
    assert sorted(path.name for path in state.iterdir()) == ["10.9.0.2", "bridge.lock"]


def test_leases_of_one_bridge() -> None:
    claim("a", TINY)
    claim("b", BridgeSettings("other0", IPv4Network("10.8.0.0/24")))
    assert [lease.sandbox for lease in addresses.leases("other0")] == ["b"]
    assert [lease.sandbox for lease in addresses.leases()] == ["b", "a"]


@given(some.lists(some.integers(min_value=0, max_value=4), max_size=30))
def test_no_address_is_given_twice(tmp_path_factory: pytest.TempPathFactory, moves: list[int]) -> None:
    """Each move is one of five sandboxes that comes, or goes if it is there."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MINIRT_STATE", str(tmp_path_factory.mktemp("state")))
        there: dict[int, addresses.Lease] = {}
        for number in moves:
            if lease := there.pop(number, None):
                addresses.release(lease)
            else:
                there[number] = claim(str(number))
            assert len({lease.address for lease in there.values()}) == len(there)
            assert {lease.sandbox for lease in addresses.leases()} == {str(number) for number in there}
