"""Packet filtering and NAT: our own nftables table, and a way past a FORWARD chain that drops.

The table is rendered whole from the leases and replaced in one transaction; its name is the bridge's. It cannot accept
what another table on the same hook drops, and docker sets ``FORWARD DROP`` (with bridge-nf-call-iptables=1, which it
sets too, that stops pod-to-pod frames on the bridge as well). So where an iptables FORWARD chain is in use, tagged
rules go into it: into DOCKER-USER, which docker keeps for others, where there is one. ip6tables' is its twin for IPv6.

Whether all this is still in place is known without asking anybody: the kernel counts changes to nftables (iptables'
nf_tables backend is one of its users), and a generation number that has not moved means that nothing has. The legacy
backend is not counted; it is looked at each time, where /proc/net/ip_tables_names tells that it is in use.

Source: nft(8), iptables(8), libnftables; Documentation/networking/bridge.rst (bridge netfilter).
"""

import contextlib
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from minirt import journal
from minirt.errors import NetworkError
from minirt.network.addresses import Memory
from minirt.network.settings import BridgeSettings, PortMapping

if TYPE_CHECKING:
    from subprocess import Popen

NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_NO_ENOBUFS = 5
NFNLGRP_NFTABLES = 7
NFT_MSG_NEWGEN = 0x0A0F
NFT_MSG_GETGEN = 0x0A10
NFT_MSG_NEWTABLE = 0x0A00
NFT_MSG_GETTABLE = 0x0A01
NFTA_TABLE_NAME = 1
NFPROTO_IPV4, NFPROTO_IPV6 = 2, 10
NLM_F_REQUEST = 1

LOCAL = {"ip": "fib daddr type local", "ip6": "ip6 daddr != ::1 fib daddr type local"}
"""Every address of the host. What comes from ::1 stays on the host: the kernel has no route_localnet for IPv6."""

NAMES = Path("/proc/net")
SEARCH = os.defpath + ":/usr/sbin:/sbin:/usr/local/sbin"


class Forward(NamedTuple):
    """A port of the host and where it leads."""

    mapping: PortMapping
    to: IPv4Address
    to6: IPv6Address | None = None


def ruleset(settings: BridgeSettings, forwards: Sequence[Forward]) -> str:
    """Return the bridge's nftables table, as a transaction that replaces what there is of it."""
    name = settings.bridge
    return f"""\
table inet {name} {{}}
flush table inet {name}
table inet {name} {{
    chain postrouting {{
        type nat hook postrouting priority 100; policy accept;
{_lines(_masquerade(settings))}{_lines(_return_path(settings, forwards))}    }}
{_forwarding(settings, forwards) if forwards else ""}}}
"""


def _masquerade(settings: BridgeSettings) -> Iterator[str]:
    """Yield rules by which the world sees the host's address: what pods have is nobody's elsewhere."""
    yield f"ip saddr {settings.subnet} ip daddr != {settings.subnet} masquerade"
    if settings.subnet6:
        yield f"ip6 saddr {settings.subnet6} ip6 daddr != {settings.subnet6} masquerade"


def _forwarding(settings: BridgeSettings, forwards: Sequence[Forward]) -> str:
    """Return the chains that lead the host's ports into pods.

    With route_localnet a pod could reach services on the host's 127.0.0.1: what comes from the bridge for it is dropped
    before anything else (CVE-2020-8558).
    """
    leads = _lines(line for forward in forwards for line in _lead(forward))
    return f"""\
    chain prerouting {{
        type nat hook prerouting priority -100; policy accept;
{leads}    }}
    chain output {{
        type nat hook output priority -100; policy accept;
{leads}    }}
    chain localhost {{
        type filter hook prerouting priority -300; policy accept;
        iifname "{settings.bridge}" ip daddr 127.0.0.0/8 drop
    }}
"""


def _lead(forward: Forward) -> Iterator[str]:
    mapping, to, to6 = forward
    port = f"{mapping.protocol} dport {mapping.host_port}"
    for host in mapping.hosts:
        family, address = ("ip", str(to)) if host.version == 4 else ("ip6", f"[{to6}]")
        there = LOCAL[family] if host.is_unspecified else f"{family} daddr {host}"
        if host.version == 4 or to6:
            yield f"meta nfproto ipv{host.version} {there} {port} dnat {family} to {address}:{mapping.container_port}"


def _return_path(settings: BridgeSettings, forwards: Sequence[Forward]) -> Iterator[str]:
    """Yield rules by which answers come back through the host: to itself, and to a pod that called by the host."""
    for mapping, to, to6 in forwards:
        port = f"{mapping.protocol} dport {mapping.container_port} ct status dnat masquerade"
        yield f"ip saddr {{ 127.0.0.0/8, {settings.subnet} }} ip daddr {to} {port}"
        if to6:
            yield f"ip6 saddr {settings.subnet6} ip6 daddr {to6} {port}"


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"        {line}\n" for line in lines)


def accept_rules(bridge: str) -> list[str]:
    """Return the iptables rules, without their chain, that let the bridge's traffic pass.

    All that pods send, and of what is sent to them: answers, and what came in by a mapped port.
    """
    tag = f"-m comment --comment {_tag(bridge)} -j ACCEPT"
    state = f"-o {bridge} -m conntrack --ctstate"
    return [f"-i {bridge} {tag}", f"{state} RELATED,ESTABLISHED {tag}", f"{state} DNAT {tag}"]


def _tag(bridge: str) -> str:
    return f"minirt:{bridge}"


def to_add(listing: str, bridge: str) -> list[str]:
    """Return the iptables-restore lines that are missing from ``iptables -S``; [] where nothing stands in the way."""
    lines = _listed(listing)
    others = [line for line in lines if line.startswith("-A FORWARD ") and _tag(bridge) not in line.split()]
    if not others and "-P FORWARD DROP" not in lines:
        return []
    chain = "DOCKER-USER" if "-A FORWARD -j DOCKER-USER" in lines else "FORWARD"
    wanted = accept_rules(bridge)
    if all(f"-A {chain} {rule}" in lines for rule in wanted):
        return []
    return to_remove(listing, bridge) + [f"-I {chain} {rule}" for rule in reversed(wanted)]


def to_remove(listing: str, bridge: str) -> list[str]:
    """Return the iptables-restore lines that delete the rules tagged as this bridge's."""
    tagged = [line for line in _listed(listing) if _tag(bridge) in line.split()]
    return [line.replace("-A", "-D", 1) for line in tagged]


def _listed(listing: str) -> list[str]:
    """Return the lines of ``iptables -S``; it quotes some comments, ours need none."""
    return listing.replace('"', "").splitlines()


class Backend(NamedTuple):
    """One home of iptables rules: nf_tables, whose changes the generation counts, or the legacy one; of one family."""

    command: str
    restore: str
    counted: bool


def _backend(name: str, *, counted: bool = True) -> Backend | None:
    command, restore = _program(name), _program(f"{name}-restore")
    return Backend(command, restore, counted) if command and restore else None


def _nf_tables() -> list[Backend]:
    """Return nf_tables' backends that have a FORWARD chain: one that never was asked for anything has none."""
    names = {NFPROTO_IPV4: "iptables", NFPROTO_IPV6: "ip6tables"}
    found = [_backend(f"{name}-nft") or _backend(name) for family, name in names.items() if has_table(family, "filter")]
    return [backend for backend in found if backend]


def _legacy() -> list[Backend]:
    """Return the legacy backends in use. Asking their commands would load their modules and make their tables."""
    found = []
    for name in ("ip", "ip6"):
        file = NAMES / f"{name}_tables_names"
        if file.exists() and "filter" in file.read_text().split():
            found.append(_backend(f"{name}tables-legacy", counted=False))
    return [backend for backend in found if backend]


class Firewall:
    """The host's rules, as the holder of the network's lock sees and changes them."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._found = generation()
        self._changes = 0
        self._in_place = False
        self._listings: dict[Backend, str] = {}

    @property
    def untouched(self) -> bool:
        """Say whether all is known to be as the last holder of the lock left it."""
        return self._found == self._memory.generation != 0 and not _legacy()

    def install(self, rules: str) -> None:
        """Put a ``ruleset`` in place, unless it is. Raises NetworkError: nft is not installed, or refuses it."""
        content, memory = rules.encode(), self._memory
        digest = f"{len(content)}-{zlib.crc32(content):08x}"
        self._in_place = (self._found, digest) == (memory.generation, memory.rules) and self._found != 0
        if not self._in_place:
            with self._listed_meanwhile():
                self._nft(rules)
            memory.rules = digest

    @contextlib.contextmanager
    def _listed_meanwhile(self) -> Iterator[None]:
        """List iptables' rules for ``accept`` while the block runs: each program takes some milliseconds to start."""
        with contextlib.ExitStack() as started:
            listing = {each: started.enter_context(_started(_listing_by(each))) for each in _nf_tables()}
            yield
            self._listings = {backend: _output_of(process) for backend, process in listing.items()}

    def accept(self, bridge: str) -> None:
        """Let the bridge's traffic pass iptables' FORWARD chain, where it could be stopped there; after ``install``."""
        if not self._in_place:
            self._amend(_nf_tables(), to_add, bridge)
        self._amend(_legacy(), to_add, bridge)

    @contextlib.contextmanager
    def removing(self, bridge: str) -> Iterator[None]:
        """Remove the bridge's table and its iptables rules, what there is of them, while the block runs."""
        with self._listed_meanwhile(), self._nft_meanwhile(f"table inet {bridge} {{}}; delete table inet {bridge}"):
            yield
        self._amend([*_nf_tables(), *_legacy()], to_remove, bridge)
        self._memory.rules = ""

    @contextlib.contextmanager
    def _nft_meanwhile(self, commands: str) -> Iterator[None]:
        """Have nft execute commands, if it is there, while the block runs."""
        program = _program("nft")
        if program is None:
            yield
            return
        with _started((program, commands)) as process:
            yield
            journal.step("nft", lambda *_: _output_of(process), (program, commands))
        self._changes += 1

    def remember(self) -> None:
        """Remember the rules as they are now, unless somebody else has changed some meanwhile."""
        now = generation()
        self._memory.generation = now if now == self._found + self._changes else 0

    def _amend(self, backends: list[Backend], wanted: Callable[[str, str], list[str]], bridge: str) -> None:
        for backend in backends:
            if lines := wanted(self._listed(backend), bridge):
                text = "\n".join(["*filter", *lines, "COMMIT", ""])
                journal.step("iptables", _spawn, (backend.restore, "-w", "--noflush"), text)
                self._changes += backend.counted

    def _listed(self, backend: Backend) -> str:
        listing = self._listings.pop(backend, None)
        return _spawn(_listing_by(backend)) if listing is None else listing

    def _nft(self, rules: str) -> None:
        program = _program("nft")
        if program is None:
            raise NetworkError("run nft", "it is not installed", "install nftables")
        journal.step("nft", _spawn, (program, "-f", "-"), rules)
        self._changes += 1


def _program(name: str) -> str | None:
    found = (f"{directory}/{name}" for directory in SEARCH.split(":"))
    return next((path for path in found if os.access(path, os.X_OK)), None)


def _listing_by(backend: Backend) -> tuple[str, ...]:
    return (backend.command, "-w", "-S")


def _spawn(command: tuple[str, ...], text: str = "") -> str:
    """Run a program on ``text``; return what it printed. Raises NetworkError: it failed."""
    with _started(command) as process:
        return _output_of(process, text)


def _started(command: tuple[str, ...]) -> "Popen[str]":
    from subprocess import PIPE, Popen

    return Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, env={"LC_ALL": "C"})


def _output_of(process: "Popen[str]", text: str = "") -> str:
    """Return what a program prints on ``text``. Raises NetworkError: it failed; its own words are the reason."""
    output, errors = process.communicate(text)
    if process.returncode:
        name = str(process.args[0]).rpartition("/")[2]  # type: ignore[index]
        raise NetworkError(f"change rules with {name}", errors.strip(), "try it by hand: nft list ruleset")
    return output


def has_table(family: int, name: str) -> bool:
    """Say whether nftables has a table. Source: linux/netfilter/nf_tables.h, NFT_MSG_GETTABLE."""
    attribute = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(attribute), NFTA_TABLE_NAME) + attribute
    attribute += bytes(-len(attribute) % 4)
    return _asked(NFT_MSG_GETTABLE, family, attribute)[0] == NFT_MSG_NEWTABLE


def watch() -> socket.socket:
    """Return a socket that is readable when somebody has changed nftables rules of this network namespace.

    Receive what is there, into a small buffer: the changes themselves do not matter. Changes through iptables' legacy
    backend are not told. Source: linux/netfilter/nfnetlink.h, NFNLGRP_NFTABLES.
    """
    watcher = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    watcher.bind((0, 1 << NFNLGRP_NFTABLES - 1))
    watcher.setsockopt(SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)
    watcher.setblocking(False)
    return watcher


def generation() -> int:
    """Return the generation of this network namespace's nftables rules: it counts up with every change.

    Return 0 where the kernel has no nftables. Source: linux/netfilter/nf_tables.h, NFT_MSG_GETGEN; the answer's first
    attribute is NFTA_GEN_ID, big-endian.
    """
    kind, answer = _asked(NFT_MSG_GETGEN, 0)
    return int(struct.unpack_from(">I", answer, 24)[0]) if kind == NFT_MSG_NEWGEN else 0


def _asked(message: int, family: int, attributes: bytes = b"") -> tuple[int, bytes]:
    """Ask nftables one thing; return the kind of the answer, which is an error's where there is no such, and itself."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as netfilter:
        head = struct.pack("=IHHIIBBH", 20 + len(attributes), message, NLM_F_REQUEST, 1, 0, family, 0, 0)
        netfilter.send(head + attributes)
        answer = netfilter.recv(4096)
    return int(struct.unpack_from("=H", answer, 4)[0]), answer
