"""What the compiler of requests must know of the machine. It is read once; the compiler itself reads nothing."""

import os
import socket
from pathlib import Path

from msgspec import Struct

RESOLV_CONF = Path("/etc/resolv.conf")
RESOLVED_UPSTREAMS = Path("/run/systemd/resolve/resolv.conf")


class Resolver(Struct, frozen=True):
    """What resolv.conf(5) says."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Node(Struct, frozen=True):
    """This machine. ``controllers`` are those of cgroup v2; ``cgroup_root`` is minirt's directory in its tree."""

    name: str
    address: str
    cpus: int
    memory_bytes: int
    controllers: frozenset[str]
    cgroup_root: str
    resolver: Resolver
    hosts: str


def here() -> Node:
    """Read what there is to know of this machine."""
    return Node(
        name=socket.gethostname(),
        address=_address(),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        controllers=_controllers(),
        cgroup_root=os.environ.get("MINIRT_CGROUP", "minirt"),
        resolver=_resolver(),
        hosts=_text(Path("/etc/hosts")),
    )


def _address() -> str:
    """Return the address this machine would speak to the world from. Connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address


def _controllers() -> frozenset[str]:
    for line in _text(Path("/proc/self/mountinfo")).splitlines():
        fields = line.split()
        if fields[fields.index("-", 6) + 1] == "cgroup2":
            return frozenset(_text(Path(fields[4], "cgroup.controllers")).split())
    return frozenset()


def _resolver() -> Resolver:
    """Read resolv.conf; where it names only a resolver on loopback, which no pod can reach, read what that one asks."""
    found = parse_resolv_conf(_text(RESOLV_CONF))
    if found.servers and all(server.startswith("127.") for server in found.servers):
        return parse_resolv_conf(_text(RESOLVED_UPSTREAMS)) if RESOLVED_UPSTREAMS.exists() else found
    return found


def parse_resolv_conf(text: str) -> Resolver:
    """Return what a resolv.conf says; of several search lines the last counts. Source: resolv.conf(5)."""
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        match line.split():
            case ["nameserver", server, *_]:
                servers.append(server)
            case ["search" | "domain", *domains]:
                searches = domains
            case ["options", *words]:
                options += words
    return Resolver(tuple(servers), tuple(searches), tuple(options))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
