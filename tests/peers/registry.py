"""Debian's docker-registry on a free port of loopback."""

import contextlib
import socket
import urllib.request
from pathlib import Path

from tests.peers.daemon import Daemon

CONFIG = """
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: "{directory}/data"}}
  delete: {{enabled: true}}
http:
  addr: "{address}"
"""


class Registry:
    """A running registry that takes and gives anything, without TLS or passwords."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.address = f"127.0.0.1:{_free_port()}"
        config = directory / "config.yml"
        config.write_text(CONFIG.format(directory=directory, address=self.address))
        self._daemon = Daemon(directory, ["docker-registry", "serve", config], self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{self.address}/v2/", timeout=5) as answer:
            return answer.status == 200
        return False

    def requests(self) -> list[str]:
        """Return the requests it has answered, a line of its access log each."""
        return [line for line in self._daemon.log().splitlines() if '"GET /v2/' in line or '"HEAD /v2/' in line]

    def close(self) -> None:
        """End it."""
        self._daemon.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
