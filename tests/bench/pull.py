"""Pull and unpack of a large image from a registry on loopback, beside docker and containerd.

Each round every contender pulls what it does not have; what they write goes to the disk before the next one begins.
CPU time is that of the command and of its daemon with all their children; the registry's own is nobody's.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minirt.shim.zygote import Zygote
from tests import isolation
from tests.bench.measure import Results
from tests.command import COMMAND
from tests.peers import busybox
from tests.peers.containerd import Containerd
from tests.peers.daemon import output
from tests.peers.docker import Dockerd
from tests.peers.registry import Registry

WALL, CPU = 0.6, 0.5
"""Targets, as shares of what a peer takes."""
MEMORY_MB = 100
REQUESTS = 5
DISK_BYTES = 6 << 30
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """What one pull took: seconds, seconds of CPU, megabytes at the peak (of the command alone)."""

    wall_s: float
    cpu_s: float
    memory_mb: float


class Puller:
    """One way to pull: a command, the daemon it asks (pid 0: none), and a command that removes the image again."""

    def __init__(self, pull: list[str], remove: list[str], daemon: int = 0) -> None:
        self._pull = pull
        self._remove = remove
        self._daemon = daemon

    def pull(self) -> Cost:
        """Pull once."""
        before, begun = _cpu_s(self._daemon), time.perf_counter()
        child = subprocess.Popen(self._pull, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0, f"{self._pull} failed: {child.returncode}"
        cpu = usage.ru_utime + usage.ru_stime + _cpu_s(self._daemon) - before
        return Cost(wall, cpu, usage.ru_maxrss / 1024)

    def remove(self) -> None:
        """Remove the image, and have everything on the disk."""
        output(*self._remove)
        os.sync()


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds of a daemon, of the daemons below it, and of all children they have waited for."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * TICK_S + sum(map(_cpu_s, isolation.children_of(pid)))


def bench(place: Path, root: Path, zygote: Zygote, runs: int) -> Results:
    """Return the ratios of a tenth as many runs: they are long."""
    with _file_system(place):
        return _bench(place, root, runs)


@contextlib.contextmanager
def _file_system(place: Path) -> Iterator[None]:
    """Mount a new ext4 on ``place`` while the block runs, and have minirt's store there too.

    ext4 does not give out an inode again within minutes of its deletion, and looks at each of them to find that out:
    on a disk where images come and go, making a file can take ten times as long, for all contenders.
    """
    place.mkdir()
    disk = place.with_suffix(".ext4")
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    output("mkfs.ext4", "-q", disk)
    output("mount", "-o", "loop", disk, place)
    root, os.environ["MINIRT_ROOT"] = os.environ["MINIRT_ROOT"], str(place / "minirt")
    try:
        yield
    finally:
        os.environ["MINIRT_ROOT"] = root
        output("umount", place)


def _bench(place: Path, root: Path, runs: int) -> Results:
    archive = busybox.archive(place / "busybox.tar", root)
    registry = Registry(place / "registry")
    docker = Dockerd(place / "docker", [archive])
    containerd = Containerd(place / "containerd", [archive], busybox.NAME)
    try:
        name = f"{registry.address}/large:latest"
        # By another process, for what this one has needed at most counts as its children's peak too.
        output(sys.executable, "-m", "tests.bench.largeimage", place / "layout")
        output("skopeo", "copy", "--dest-tls-verify=false", f"oci:{place / 'layout'}:latest", f"docker://{name}")
        pullers = _pullers(name, docker, containerd)
        costs = _rounds(pullers, max(runs // 10, 3))
        again, lines = _second(pullers["minirt"], registry)
    finally:
        containerd.close()
        docker.close()
        registry.close()
    return _judged(costs, again, lines)


def _pullers(name: str, docker: Dockerd, containerd: Containerd) -> dict[str, Puller]:
    client = ["docker", "--host", docker.socket]
    ctr = ["ctr", "--address", str(containerd.socket), "--namespace", "bench", "images"]
    return {
        "minirt": Puller([COMMAND, "image", "pull", "-q", name], [COMMAND, "image", "rm", name]),
        "docker": Puller([*client, "pull", "-q", name], [*client, "rmi", name], docker.pid),
        "containerd": Puller([*ctr, "pull", "--plain-http", name], [*ctr, "rm", "--sync", name], containerd.pid),
    }


def _rounds(pullers: dict[str, Puller], runs: int) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {name: [] for name in pullers}
    for number in range(runs + 1):  # the first one warms up
        for name, puller in pullers.items():
            cost = puller.pull()
            puller.remove()
            if number:
                costs[name].append(cost)
    return costs


def _second(ours: Puller, registry: Registry) -> tuple[Cost, list[str]]:
    """Pull what is there already; return what that took, and the requests that the registry saw."""
    ours.pull()
    before = len(registry.requests())
    return ours.pull(), registry.requests()[before:]


def _judged(costs: dict[str, list[Cost]], again: Cost, requests: list[str]) -> Results:
    middle = {
        name: Cost(*(statistics.median(getattr(one, field) for one in all_) for field in Cost.__dataclass_fields__))
        for name, all_ in costs.items()
    }
    ours = middle["minirt"]
    peak = max(one.memory_mb for one in costs["minirt"])
    found = []
    for name in ("docker", "containerd"):
        wall, cpu = ours.wall_s / middle[name].wall_s, ours.cpu_s / middle[name].cpu_s
        found.append((f"pull, wall time: {wall:.2f} of {name}; target {WALL}", wall <= WALL))
        found.append((f"pull, CPU time: {cpu:.2f} of {name}; target {CPU}", cpu <= CPU))
    found.append((f"pull, peak memory: {peak:.0f} MB; target {MEMORY_MB}", peak < MEMORY_MB))
    blobs = [line for line in requests if "/blobs/" in line]
    told = f"second pull: {len(requests)} requests, {len(blobs)} blobs, {again.wall_s * 1e3:.0f} ms"
    found.append((f"{told}; target {REQUESTS} and none", len(requests) <= REQUESTS and not blobs))
    figures = [f"{name:<10} {cost.wall_s:6.2f} s {cost.cpu_s:6.2f} s CPU" for name, cost in middle.items()]
    return Results(tuple(found), tuple(figures))
