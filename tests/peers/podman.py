"""podman of the tests' own: no daemon, but storage, state, networks and configuration in one directory.

Its usual runtime, crun 1.8, refuses a machine with hybrid cgroups: there it calls runc.
"""

import os
import resource
import subprocess
from pathlib import Path

from tests import leaks
from tests.peers import oci
from tests.peers.daemon import output, remove_cgroups, run

POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'
CONTAINERS_CONF = """
[containers]
default_ulimits = [{ulimits}]
pids_limit = 0
[engine]
runtime = "{runtime}"
cgroup_manager = "cgroupfs"
events_logger = "file"
infra_image = "{pause}"
[network]
network_config_dir = "{directory}/networks"
cni_plugin_dirs = ["/usr/lib/cni"]
"""


class Podman:
    """A podman that shares nothing with the machine's."""

    def __init__(self, directory: Path, images: list[Path], pause: str) -> None:
        self.directory = directory
        (directory / "networks").mkdir(parents=True)
        leaks.PASSING.add(str(directory / "root/overlay"))
        (directory / "policy.json").write_text(POLICY)
        runtime = "runc" if oci.is_hybrid() else "crun"
        settings = CONTAINERS_CONF.format(directory=directory, pause=pause, runtime=runtime, ulimits=_ulimits())
        (directory / "containers.conf").write_text(settings)
        self.env = dict(os.environ) | {"CONTAINERS_CONF": str(directory / "containers.conf")}
        for image in images:
            self.output("load", "--signature-policy", directory / "policy.json", "--input", image)

    def command(self, *words: str | Path) -> list[str | Path]:
        """Return the command line of ``podman words…`` (to be run with ``env``)."""
        places = ["--root", self.directory / "root", "--runroot", self.directory / "run"]
        return ["podman", *places, "--tmpdir", self.directory / "tmp", *words]

    def __call__(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run ``podman words…`` to its end."""
        return run(*self.command(*words), env=self.env)

    def output(self, *words: str | Path) -> str:
        """Run ``podman words…``, which must succeed; return its stdout."""
        return output(*self.command(*words), env=self.env)

    def close(self) -> None:
        """Remove its pods and containers, and unmount what its storage keeps mounted."""
        self.output("pod", "rm", "--all", "--force")
        self.output("rm", "--all", "--force")
        leaks.unmount_below(self.directory)
        remove_cgroups("libpod_parent")


def _ulimits() -> str:
    """Return limits that need no raising, which would take CAP_SYS_RESOURCE: podman lowers its own nproc to pid_max."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes = min(resource.getrlimit(resource.RLIMIT_NPROC)[1], int(Path("/proc/sys/kernel/pid_max").read_text()))
    return f'"nofile={soft}:{hard}", "nproc={processes}:{processes}"'
