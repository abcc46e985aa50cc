"""dockerd of the tests' own: its sockets, state, images and containers lie in one directory.

It is started in the namespaces of the tests, so its bridge and its iptables rules (FORWARD DROP among them) are there
and nowhere else; ``close`` takes away those too.
"""

import json
import subprocess
from pathlib import Path

from tests.peers import oci
from tests.peers.daemon import Daemon, output, remove_cgroups, run

CGROUP = "minirt-peer-docker"


class Dockerd:
    """A running dockerd and its client."""

    def __init__(self, directory: Path, images: list[Path]) -> None:
        self.socket = f"unix://{directory}/docker.sock"
        self.directory = directory
        self._tables = _tables()
        directory.mkdir(parents=True)
        (directory / "daemon.json").write_text("{}")
        places = ["--config-file", directory / "daemon.json", "--data-root", directory / "data"]
        places += ["--exec-root", directory / "exec", "--pidfile", directory / "pid", "--host", self.socket]
        more = ["--storage-driver", "overlay2", "--cgroup-parent", f"/{CGROUP}"]
        more += ["--add-runtime", f"minirt-oci={oci.minirt(directory).program[0]}"]
        self._daemon = Daemon(directory, ["dockerd", *places, *more], self._answers)
        for image in images:
            self.output("load", "--input", image)

    @property
    def pid(self) -> int:
        """Return the daemon's own pid."""
        return self._daemon.process.pid

    def _answers(self) -> bool:
        return self("version").returncode == 0

    def __call__(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run ``docker words…`` to its end."""
        return run("docker", "--host", self.socket, *words)

    def output(self, *words: str | Path) -> str:
        """Run ``docker words…``, which must succeed; return its stdout."""
        return output("docker", "--host", self.socket, *words)

    def pid_of(self, container: str) -> int:
        """Return the host pid of a container's first process."""
        return int(json.loads(self.output("inspect", container))[0]["State"]["Pid"])

    def close(self) -> None:
        """Remove its containers, end it, and take its bridge and its tables away."""
        if containers := self.output("ps", "--all", "--quiet").split():
            self.output("rm", "--force", "--volumes", *containers)
        self._daemon.close()
        remove_cgroups(CGROUP)
        run("ip", "link", "delete", "docker0")
        for table in _tables() - self._tables:
            output("nft", "delete", *table.split())


def _tables() -> set[str]:
    return set(output("nft", "list", "tables").splitlines())
