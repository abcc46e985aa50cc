"""``minirt serve`` as the tests start it: in a directory of its own, awaited, ended, killed and started again."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests import requirements
from tests.command import COMMAND, Minirt
from tests.peers.daemon import Daemon


class Server:
    """A running server of one installation of minirt; its CRI socket is ``socket``."""

    def __init__(self, minirt: Minirt, directory: Path, cni: Path | None = None, *plugins: Path) -> None:
        self.minirt = minirt
        self.directory = directory
        self.socket = directory / "minirt.sock"
        self.cni = ["--cni-conf-dir", str(cni or "")]
        self.cni += [word for place in (*plugins, "/usr/lib/cni") for word in ("--cni-bin-dir", str(place))]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        options = ["--best-effort-limits"] if requirements.no_controllers() else []
        env = [f"{key}={value}" for key, value in self.minirt.env.items() if key.startswith("MINIRT_")]
        command = ["env", *env, COMMAND, "serve", "--listen", self.socket, *self.cni, *options]
        self.daemon = Daemon(self.directory, command, self._answers)

    def _answers(self) -> bool:
        return "serving the CRI" in (self.directory / "log").read_text()

    def close(self) -> None:
        """End it."""
        self.daemon.close()


@contextlib.contextmanager
def own_server(directory: Path, store: Path) -> Iterator[Server]:
    """Yield a server of one test's own, with the images of a store; nothing that it made is there afterwards."""
    state = Path(tempfile.mkdtemp(prefix="serve-", dir=os.environ["MINIRT_STATE"]))
    minirt = Minirt(directory / "root", state)
    shutil.copytree(store, minirt.root, symlinks=True)
    server = Server(minirt, directory)
    try:
        yield server
    finally:
        server.close()
        minirt("system", "prune")
