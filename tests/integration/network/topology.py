"""Network namespaces for tests, without a process in them: a namespace lives as long as a descriptor of it.

A socket belongs to the namespace it was made in, so the tests make sockets inside sandboxes and use them from outside.
This process has one thread, and moves: it is on the test's own host unless it is inside a ``with``.
"""

import contextlib
import os
import socket
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from minirt.linux import process

PATIENCE_S = 5.0


class Namespace:
    """One network namespace, with lo up."""

    def __init__(self) -> None:
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            process.unshare(process.CLONE_NEWNET)
            process.link_up("lo")
            self.fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            process.setns(home)
        finally:
            os.close(home)

    @property
    def path(self) -> Path:
        return Path(f"/proc/{os.getpid()}/fd/{self.fd}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            process.setns(self.fd)
            yield
        finally:
            process.setns(home)
            os.close(home)

    def open_socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0
    ) -> socket.socket:
        with self.inside():
            made = socket.socket(family, kind, protocol)
        made.settimeout(PATIENCE_S)
        return made

    def netlink(self) -> socket.socket:
        return self.open_socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)

    def run(self, *commands: str) -> str:
        """Run commands inside; return what the last one printed."""
        with self.inside():
            for command in commands:
                done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def listen(self, address: str = "0.0.0.0", port: int = 8080) -> socket.socket:
        server = self.open_socket(family_of(address))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen()
        return server

    def reaches(self, server: socket.socket, address: str, port: int = 8080) -> str:
        """Have a client of this namespace exchange a word with ``server``; return the address the server saw.

        Raises TimeoutError or ConnectionError: the two do not reach each other.
        """
        with self.open_socket(family_of(address)) as client:
            client.connect((address, port))
            served, (seen, *_) = server.accept()
            with served:
                client.sendall(b"ping")
                assert served.recv(4) == b"ping"
                served.sendall(b"pong")
                assert client.recv(4) == b"pong"
        return str(seen)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait for what the kernel does in its own time."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.005)

    def state(self) -> dict[str, str]:
        """Return what can leak here: links, nftables rules, iptables rules."""
        with self.inside():
            return {
                "links": ", ".join(name for _, name in socket.if_nameindex()),
                "nftables": self.run("nft -s list ruleset"),
                "iptables": self.run("iptables-nft -S") + self.run("ip6tables-nft -S"),
            }


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def fork(work: Callable[[], object]) -> int:
    """Do ``work`` in a child of this process, and end it there; return its pid."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)


def ended(pid: int) -> int:
    """Wait for a child; return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
