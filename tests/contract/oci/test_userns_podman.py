"""podman's containers in user namespaces: it maps the image's files, and chooses the rest of config.json."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.peers.busybox import NAME
from tests.peers.podman import Podman

pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.slow, pytest.mark.needs("podman")]

LESS = ("--pids-limit", "-1", "--security-opt", "seccomp=unconfined")
MAPS = ("--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536", *LESS)
RUNTIMES = {"runc": shutil.which("runc") or "runc", "minirt-oci": str(Path(sys.executable).with_name("minirt-oci"))}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_podman_maps_ids(podman: Podman, runtime: str) -> None:
    script = "cat /proc/self/uid_map; stat -c %u /bin; echo x >/new; stat -c %u /new; id -u"
    words = ("run", "--rm", "--network", "none", *MAPS, NAME, "sh", "-c", script)
    done = podman("--runtime", RUNTIMES[runtime], *words)
    assert done.stdout.split() == ["0", "100000", "65536", "0", "0", "0"], done.stderr


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_podman_shares_one(podman: Podman, runtime: str) -> None:
    """And the network namespace that it owns, where only lo is (two lines are a header)."""
    own = ("--runtime", RUNTIMES[runtime])
    name = f"first-{runtime}"
    podman.output(*own, "run", "--detach", "--name", name, "--network", "none", *MAPS, NAME, "sleep", "1000")
    try:
        shared = ("--userns", f"container:{name}", "--network", f"container:{name}")
        done = podman(
            *own, "run", "--rm", *shared, *LESS, NAME, "sh", "-c", "cat /proc/self/uid_map; wc -l </proc/net/dev"
        )
        assert done.stdout.split() == ["0", "100000", "65536", "3"], done.stderr
    finally:
        podman.output(*own, "rm", "--force", "--time", "0", name)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_podman_execs_into_one(podman: Podman, runtime: str) -> None:
    own = ("--runtime", RUNTIMES[runtime])
    name = f"mapped-{runtime}"
    podman.output(*own, "run", "--detach", "--name", name, "--network", "none", *MAPS, NAME, "sleep", "1000")
    try:
        done = podman(*own, "exec", "--user", "5", name, "sh", "-c", "id -u; cat /proc/self/uid_map")
        assert done.stdout.split() == ["5", "0", "100000", "65536"], done.stderr
    finally:
        podman.output(*own, "rm", "--force", "--time", "0", name)
