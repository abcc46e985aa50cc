"""Address leases: which sandbox has which address. One file an address, which is there or is not: never half-written.

    /run/minirt/network/
        bridge.lock          held (flock) while leases, bridge or rules change; its text is the Memory below
        10.77.0.2            {"sandbox": …, "bridge": …, "subnet": …, "boot": …, "ports": […]}

A lease is written under another name and then linked to the address's: link(2) fails where the address is taken. It is
there before anything else of a sandbox's network and goes last, so that whatever a crash leaves has a lease that tells
of it. Another boot's leases tell of nothing: that boot's network is gone.
"""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import msgspec
from msgspec import Struct

from minirt import decoding, journal, paths
from minirt.errors import Conflict, MinirtError, NetworkError
from minirt.network.settings import BridgeSettings, PortMapping


class Lease(Struct, frozen=True):
    """One sandbox's address, and all that is needed to take its network down again."""

    address: IPv4Address
    sandbox: str
    bridge: str
    subnet: IPv4Network
    boot: str
    ports: tuple[PortMapping, ...] = ()

    @property
    def settings(self) -> BridgeSettings:
        """Return the bridge that this lease was made for, whatever the environment says today."""
        return BridgeSettings(self.bridge, self.subnet)

    @property
    def interface(self) -> IPv4Interface:
        """Return the address with its subnet."""
        return IPv4Interface((self.address, self.subnet.prefixlen))


class Memory(Struct):
    """What one holder of the lock tells the next: the address given last, and the rules put in place last.

    ``generation`` is that of nftables when they were in place, ``rules`` their digest.
    """

    boot: str = ""
    last: str = ""
    generation: int = 0
    rules: str = ""


_encode = msgspec.json.Encoder(enc_hook=str).encode
_decode = msgspec.json.Decoder(Lease, dec_hook=lambda kind, text: kind(text)).decode


def directory() -> Path:
    """Return the directory of the leases."""
    return paths.state_root() / "network"


@contextlib.contextmanager
def locked() -> Iterator[Memory]:
    """Hold the network's lock, others wait; what is in the memory at the end of the block the next holder is told.

    The lock ends with the process that holds it, however that ends. A torn text is read as none: all of it can be found
    out again.
    """
    directory().mkdir(parents=True, exist_ok=True)
    with open(os.open(directory() / "bridge.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        memory = _memory(file.read())
        yield memory
        data = msgspec.json.encode(memory)
        os.pwrite(file.fileno(), data, 0)
        os.ftruncate(file.fileno(), len(data))


def _memory(text: bytes) -> Memory:
    boot = paths.boot_id()
    with contextlib.suppress(msgspec.DecodeError):
        memory = decoding.from_json(text, Memory)
        if memory.boot == boot:
            return memory
    return Memory(boot)


def leases(bridge: str | None = None) -> list[Lease]:
    """Return the leases (of one bridge), those of another boot too. Unlocked, it may miss what changes meanwhile."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(directory()):
            if name[0].isdigit() and (lease := _read(directory() / name)):
                found.append(lease)
    return sorted((lease for lease in found if bridge in (None, lease.bridge)), key=lambda lease: lease.address)


def _read(path: Path) -> Lease | None:
    try:
        return _decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, MinirtError) as error:
        raise NetworkError(f"read the lease {path}", str(error), "remove the file if no sandbox uses it") from error


def of_sandbox(sandbox_id: str) -> Lease | None:
    """Return a sandbox's lease, or None."""
    return next((lease for lease in leases() if lease.sandbox == sandbox_id), None)


def claim(memory: Memory, sandbox_id: str, settings: BridgeSettings, ports: Sequence[PortMapping] = ()) -> Lease:
    """Lease the next free address of the bridge's subnet to a sandbox; the lock must be held.

    Addresses go round, so that one just released is the last to be given again: peers may still know its old owner.

    Raises:
        Conflict: the sandbox has an address already, or another one has one of ``ports``.
        NetworkError: every address of the subnet is taken.
    """
    known = _of_this_boot(memory)
    _refuse(known, sandbox_id, ports)
    address = _next_free(memory.last, settings, {lease.address for lease in known})
    lease = Lease(address, sandbox_id, settings.bridge, settings.subnet, memory.boot, tuple(ports))
    memory.last = str(address)
    journal.step("link", _place, lease)
    return lease


def _of_this_boot(memory: Memory) -> list[Lease]:
    """Return the leases that hold, and release those that another boot left."""
    found = leases()
    for lease in found:
        if lease.boot != memory.boot:
            release(lease)
    return [lease for lease in found if lease.boot == memory.boot]


def _refuse(known: list[Lease], sandbox_id: str, ports: Sequence[PortMapping]) -> None:
    for lease in known:
        if lease.sandbox == sandbox_id:
            raise Conflict(f"attach sandbox {sandbox_id}", f"it has {lease.address} already", "detach it first")
        for port in ports:
            if any(port.collides_with(taken) for taken in lease.ports):
                raise Conflict(f"map host port {port}", f"sandbox {lease.sandbox} has it", "use another host port")
    for port in ports:
        _refuse_bound(port)


def _refuse_bound(port: PortMapping) -> None:
    """Refuse a port that a process of the host listens on: that process would no longer be reached."""
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}.get(port.protocol)
    if kind is None:
        return
    with socket.socket(socket.AF_INET, kind) as probe:
        # What is left of closed connections is no listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == socket.SOCK_STREAM))
        try:
            probe.bind((str(port.host_ip), port.host_port))
        except OSError as error:
            why = "a process of this host has it" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
            raise Conflict(f"map host port {port}", why, "use another host port or address") from error


def _next_free(last: str, settings: BridgeSettings, taken: set[IPv4Address]) -> IPv4Address:
    subnet = settings.subnet
    first, count = int(subnet.network_address) + 2, subnet.num_addresses - 3
    after = int(IPv4Address(last)) + 1 - first if last and IPv4Address(last) in subnet else 0
    for turn in range(count):
        if (address := IPv4Address(first + (after + turn) % count)) not in taken:
            return address
    raise NetworkError(
        f"lease an address on {settings.bridge}",
        f"all {count} of {subnet} are taken",
        "remove pods, run `minirt system prune`, or set MINIRT_SUBNET to a larger one",
    )


def _place(lease: Lease) -> None:
    written = directory() / f".{lease.address}"
    written.write_bytes(_encode(lease))
    os.link(written, directory() / str(lease.address))
    written.unlink()


def release(lease: Lease) -> None:
    """Give an address back; the lock must be held. An address that was given back already is no error."""
    with contextlib.suppress(FileNotFoundError):
        journal.step("unlink", os.unlink, directory() / str(lease.address))


def sweep() -> None:
    """Remove leases that a crash left before they were linked to an address; the lock must be held."""
    for path in directory().glob(".*"):
        path.unlink(missing_ok=True)
