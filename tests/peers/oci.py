"""OCI runtimes as commands: runc, crun and our own, told the same words; and bundles for them.

crun 1.8 refuses a machine with hybrid cgroups. There it is given a mount namespace where /sys/fs/cgroup is cgroup v2
alone (each call has its own: what crun knows of a container is in files), and bundles without limits and rlimits.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers.daemon import output, run

PURE_CGROUP2 = ("unshare", "--mount", "--propagation", "private", "sh", "-euc")
MOUNT_AND_RUN = 'mount -t cgroup2 none /sys/fs/cgroup; exec "$0" "$@"'


@dataclass(frozen=True)
class Runtime:
    """An OCI runtime with a state directory of its own."""

    program: tuple[str, ...]
    state: Path

    @property
    def name(self) -> str:
        """The program's own name."""
        return Path(self.program[-1]).name

    def command(self, *words: str | Path) -> list[str | Path]:
        """Return the command line of ``runtime words…``."""
        return [*self.program, "--root", self.state, *words]

    def __call__(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run ``runtime words…`` to its end."""
        return run(*self.command(*words))

    def detached(self, *words: str | Path, stdout: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``runtime words…`` for a container that outlives the call, and keeps the stdio that it is given.

        Only what the runtime itself writes to stderr is in the answer, when it has failed.
        """
        with tempfile.TemporaryFile("w+") as errors, (stdout or Path(os.devnull)).open("w") as out:
            done = subprocess.run(
                self.command(*words), stdin=subprocess.DEVNULL, stdout=out, stderr=errors, timeout=60, check=False
            )
            errors.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, "", errors.read())

    def status(self, container: str) -> str:
        """Return what ``state`` says of a container: created, running, stopped."""
        return str(json.loads(output(*self.command("state", container)))["status"])


def runc(state: Path) -> Runtime:
    """Return runc."""
    return Runtime(("runc",), state)


def crun(state: Path) -> Runtime:
    """Return crun, in a mount namespace for each call where this machine's cgroups are hybrid."""
    return Runtime((*PURE_CGROUP2, MOUNT_AND_RUN, "crun") if is_hybrid() else ("crun",), state)


def minirt(state: Path) -> Runtime:
    """Return this project's own."""
    return Runtime((str(Path(sys.executable).with_name("minirt-oci")),), state)


def is_hybrid() -> bool:
    """Say whether /sys/fs/cgroup holds the controllers of cgroup v1, and v2 elsewhere."""
    return not Path("/sys/fs/cgroup/cgroup.controllers").exists()


@functools.cache
def _template() -> str:
    """Return what ``runc spec`` writes."""
    with tempfile.TemporaryDirectory() as directory:
        output("runc", "spec", "--bundle", directory)
        return Path(directory, "config.json").read_text()


def bundle(directory: Path, root: Path, *command: str, **changes: Any) -> Path:
    """Make a bundle of ``runc spec``'s config.json that runs ``command`` in ``root``, on any machine and runtime.

    ``changes`` replace whole keys of the configuration (``hostname="x"``).
    """
    directory.mkdir(parents=True)
    config: dict[str, Any] = json.loads(_template())
    config["process"] |= {"terminal": False, "args": list(command)}
    config["process"].pop("rlimits", None)
    config["root"] = {"path": str(root), "readonly": False}
    config["linux"].pop("resources", None)
    (directory / "config.json").write_text(json.dumps(config | changes))
    return directory
