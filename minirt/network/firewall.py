"""Packet filtering and NAT: our own nftables table, and a way past a FORWARD chain that drops.

The table is rendered whole from the leases and replaced in one transaction; its name is the bridge's. It cannot accept
what another table on the same hook drops, and docker sets ``FORWARD DROP`` (with bridge-nf-call-iptables=1, which it
sets too, that stops pod-to-pod frames on the bridge as well). So where an iptables FORWARD chain is in use, tagged
rules go into it: into DOCKER-USER, which docker keeps for others, where there is one.

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
from ipaddress import IPv4Address
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
NLM_F_REQUEST = 1

LEGACY_TABLES = Path("/proc/net/ip_tables_names")
SEARCH = os.defpath + ":/usr/sbin:/sbin:/usr/local/sbin"


class Forward(NamedTuple):
    """A port of the host and where it leads."""

    mapping: PortMapping
    to: IPv4Address


def ruleset(settings: BridgeSettings, forwards: Sequence[Forward]) -> str:
    """Return the bridge's nftables table, as a transaction that replaces what there is of it."""
    name, subnet = settings.bridge, settings.subnet
    return f"""\
table inet {name} {{}}
flush table inet {name}
table inet {name} {{
    chain postrouting {{
        type nat hook postrouting priority 100; policy accept;
        ip saddr {subnet} ip daddr != {subnet} masquerade
{_lines(_return_path(settings, forwards))}    }}
{_forwarding(settings, forwards) if forwards else ""}}}
"""


def _forwarding(settings: BridgeSettings, forwards: Sequence[Forward]) -> str:
    """Return the chains that lead the host's ports into pods.

    With route_localnet a pod could reach services on the host's 127.0.0.1: what comes from the bridge for it is dropped
    before anything else (CVE-2020-8558).
    """
    leads = _lines(_lead(forward) for forward in forwards)
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


def _lead(forward: Forward) -> str:
    mapping, to = forward
    host = "fib daddr type local" if mapping.host_ip.is_unspecified else f"ip daddr {mapping.host_ip}"
    port = f"{mapping.protocol} dport {mapping.host_port}"
    return f"meta nfproto ipv4 {host} {port} dnat ip to {to}:{mapping.container_port}"


def _return_path(settings: BridgeSettings, forwards: Sequence[Forward]) -> Iterator[str]:
    """Yield rules by which answers come back through the host: to itself, and to a pod that called by the host."""
    for mapping, to in forwards:
        port = f"{mapping.protocol} dport {mapping.container_port} ct status dnat masquerade"
        yield f"ip saddr {{ 127.0.0.0/8, {settings.subnet} }} ip daddr {to} {port}"


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
    """One of the two homes of iptables rules: nf_tables, whose changes the generation counts, or the legacy one."""

    command: str
    restore: str
    counted: bool


def _backend(name: str, *, counted: bool = True) -> Backend | None:
    command, restore = _program(name), _program(f"{name}-restore")
    return Backend(command, restore, counted) if command and restore else None


def _nf_tables() -> Backend | None:
    return _backend("iptables-nft") or _backend("iptables")


def _legacy() -> Backend | None:
    """Return the legacy backend where it is in use. Asking its command would load its modules and make its tables."""
    in_use = LEGACY_TABLES.exists() and "filter" in LEGACY_TABLES.read_text().split()
    return _backend("iptables-legacy", counted=False) if in_use else None


class Firewall:
    """The host's rules, as the holder of the network's lock sees and changes them."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._found = generation()
        self._changes = 0
        self._in_place = False
        self._listing: str | None = None

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
        backend = _nf_tables()
        if backend is None:
            yield
            return
        with _started(_listing_by(backend)) as process:
            yield
            self._listing = _output_of(process)

    def accept(self, bridge: str) -> None:
        """Let the bridge's traffic pass iptables' FORWARD chain, where it could be stopped there; after ``install``."""
        if not self._in_place:
            self._amend(_nf_tables(), to_add, bridge)
        self._amend(_legacy(), to_add, bridge)

    def remove(self, bridge: str) -> None:
        """Remove the bridge's table and its iptables rules, what there is of them."""
        if _program("nft"):
            self._nft(f"table inet {bridge} {{}}\ndelete table inet {bridge}\n")
        self._amend(_nf_tables(), to_remove, bridge)
        self._amend(_legacy(), to_remove, bridge)
        self._memory.rules = ""

    def remember(self) -> None:
        """Remember the rules as they are now, unless somebody else has changed some meanwhile."""
        now = generation()
        self._memory.generation = now if now == self._found + self._changes else 0

    def _amend(self, backend: Backend | None, wanted: Callable[[str, str], list[str]], bridge: str) -> None:
        if backend and (lines := wanted(self._listed(backend), bridge)):
            text = "\n".join(["*filter", *lines, "COMMIT", ""])
            journal.step("iptables", _spawn, (backend.restore, "-w", "--noflush"), text)
            self._changes += backend.counted

    def _listed(self, backend: Backend) -> str:
        listing, self._listing = self._listing if backend.counted else None, None
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
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as netfilter:
        netfilter.send(struct.pack("=IHHIIBBH", 20, NFT_MSG_GETGEN, NLM_F_REQUEST, 1, 0, 0, 0, 0))
        answer = netfilter.recv(4096)
    kind: int = struct.unpack_from("=H", answer, 4)[0]
    return int(struct.unpack_from(">I", answer, 24)[0]) if kind == NFT_MSG_NEWGEN else 0
