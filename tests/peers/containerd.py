"""containerd of the tests' own, with its CRI face: what crictl would speak to is ``socket``."""

import os
import subprocess
from pathlib import Path

from tests.peers.daemon import Daemon, output, remove_cgroups, run

CONFIG = """
version = 2
root = "{directory}/root"
state = "{directory}/state"
oom_score = 0
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"
"""
CNI = """{"cniVersion": "0.4.0", "name": "peer", "plugins": [
  {"type": "bridge", "bridge": "peer0", "isGateway": true, "ipMasq": false,
   "ipam": {"type": "host-local", "dataDir": "%s/addresses", "ranges": [[{"subnet": "10.66.0.0/24"}]]}}]}
"""
KUBERNETES = "k8s.io"
"""The containerd namespace in which the CRI face keeps its images and containers."""


class Containerd:
    """A running containerd, its client ``ctr``, and its CRI socket."""

    def __init__(self, directory: Path, images: list[Path], pause: str) -> None:
        self.socket = directory / "containerd.sock"
        (directory / "cni").mkdir(parents=True)
        (directory / "cni/10-peer.conflist").write_text(CNI % directory)
        config = directory / "config.toml"
        config.write_text(CONFIG.format(directory=directory, socket=self.socket, pause=pause))
        self.env = dict(os.environ) | {"CONTAINERD_NAMESPACE": KUBERNETES}
        self._daemon = Daemon(directory, ["containerd", "--config", config], self._answers)
        for image in images:
            self.output("images", "import", image)

    @property
    def pid(self) -> int:
        """Return the daemon's own pid."""
        return self._daemon.process.pid

    def _answers(self) -> bool:
        return self.socket.exists() and self("version").returncode == 0

    def __call__(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run ``ctr words…`` in the CRI's namespace to its end."""
        return run("ctr", "--address", self.socket, *words, env=self.env)

    def output(self, *words: str | Path) -> str:
        """Run ``ctr words…``, which must succeed; return its stdout."""
        return output("ctr", "--address", self.socket, *words, env=self.env)

    def log(self) -> str:
        """Return what containerd has said so far."""
        return self._daemon.log()

    def close(self) -> None:
        """Kill its tasks, remove its containers, end it."""
        for task in self.output("tasks", "list", "--quiet").split():
            self("tasks", "delete", "--force", task)
        for container in self.output("containers", "list", "--quiet").split():
            self("containers", "delete", container)
        self._daemon.close()
        remove_cgroups(KUBERNETES)
        run("ip", "link", "delete", "peer0")
