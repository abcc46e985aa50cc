"""Debian's docker-registry on a free port of loopback: open to all, or with TLS, with passwords, with tokens."""

import contextlib
import socket
from pathlib import Path

from tests.peers.daemon import Daemon, output

CONFIG = """
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: "{directory}/data"}}
  delete: {{enabled: true}}
http:
  addr: "{address}"
"""
TLS = """  tls:
    certificate: "{certificate}"
    key: "{key}"
"""
CLIENTS = """    clientcas: ["{ca}"]
"""
PASSWORDS = """auth:
  htpasswd:
    realm: "test"
    path: "{directory}/htpasswd"
"""
TOKENS = """auth:
  token:
    realm: "{realm}"
    service: "test registry"
    issuer: "test issuer"
    rootcertbundle: "{certificate}"
"""
HASH = "print crypt($ARGV[0], '$2y$05$0123456789012345678901')"
"""bcrypt, which the registry wants, from the C library by way of perl: every Debian has both."""


class Registry:
    """A running registry that takes and gives anything; ``settings`` are more of its configuration.

    ``users`` are names and passwords, without which it lets nobody in.
    """

    def __init__(self, directory: Path, settings: str = "", users: dict[str, str] | None = None) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self.port = _free_port()
        self.address = f"127.0.0.1:{self.port}"
        config = directory / "config.yml"
        if users:
            lines = [f"{name}:{output('perl', '-e', HASH, password)}" for name, password in users.items()]
            (directory / "htpasswd").write_text("\n".join(lines))
            settings += PASSWORDS.format(directory=directory)
        config.write_text(CONFIG.format(directory=directory, address=self.address) + settings)
        self._daemon = Daemon(directory, ["docker-registry", "serve", config], self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
        return False

    def requests(self) -> list[str]:
        """Return the requests it has answered, a line of its access log each."""
        return [line for line in self._daemon.log().splitlines() if '"GET /v2/' in line or '"HEAD /v2/' in line]

    def log(self) -> str:
        """Return what it has said."""
        return self._daemon.log()

    def close(self) -> None:
        """End it."""
        self._daemon.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
