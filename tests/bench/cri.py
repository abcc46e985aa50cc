"""``minirt serve`` beside containerd with runc: the same calls over both sockets, one after the other.

Each round makes a sandbox and a container in it, executes a command, stops and removes all of it, on the one runtime
and then on the other; each call is timed by itself, and another pod is there all the time, as on any node: a bridge
comes with the first pod. Then a node is filled with pods (fullnode.py).
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from minirt.crimessages import api_pb2 as cri
from minirt.shim.zygote import Zygote
from tests.bench import fullnode
from tests.bench.measure import Result, Results, Timing
from tests.command import Minirt
from tests.peers import busybox, daemon
from tests.peers.containerd import Containerd
from tests.peers.cri import Pods, Runtime
from tests.peers.serve import Server

TARGETS = {
    "RunPodSandbox": 0.5,
    "CreateContainer + StartContainer": 0.4,
    "ExecSync": 0.4,
    "StopContainer": 0.7,
    "StopPodSandbox + RemovePodSandbox": 0.7,
}
Samples = dict[str, list[float]]


def bench(place: Path, root: Path, zygote: Zygote, runs: int, pods: int) -> list[Result | Results]:
    """Return the ratios of our calls to containerd's, and what a node with that many ``pods`` takes."""
    place.mkdir()
    archives = [
        busybox.archive(place / "busybox.tar", root),
        busybox.archive(place / "pause.tar", root, name=busybox.PAUSE, command=("/bin/sleep", "1000000")),
    ]
    minirt = Minirt(place / "minirt", Path(os.environ["MINIRT_STATE"]) / "serve")
    for archive in archives:
        minirt.output("image", "load", archive)
    server, containerd = Server(minirt, place), Containerd(place / "containerd", archives, busybox.PAUSE)
    try:
        samples = _measured(place, {"minirt": server.socket, "containerd": containerd.socket}, runs)
        full = fullnode.bench(place, server, containerd, pods, runs)
    finally:
        containerd.close()
        server.close()
        for name in ("", "-peer"):
            daemon.remove_cgroups(os.environ["MINIRT_CGROUP"] + name)
    ours, theirs = samples["minirt"], samples["containerd"]
    calls = [
        Result(name, "containerd", Timing(tuple(ours[name])), Timing(tuple(theirs[name])), target)
        for name, target in TARGETS.items()
    ]
    return [*calls, *full]


def _measured(place: Path, sockets: dict[str, Path], runs: int) -> dict[str, Samples]:
    runtimes = {name: Pods(Runtime(name, socket), _made(place / f"logs-{name}")) for name, socket in sockets.items()}
    samples: dict[str, Samples] = {name: {title: [] for title in TARGETS} for name in runtimes}
    for pods in runtimes.values():
        pods.run(_config(pods))
    for number in range(runs + 2):
        for name, pods in runtimes.items():
            _round(pods, samples[name] if number >= 2 else {title: [] for title in TARGETS})
    for pods in runtimes.values():
        pods.close()
        pods.runtime.close()
    return samples


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _timed(into: list[float], call: Callable[[], object]) -> object:
    begun = time.perf_counter()
    found = call()
    into.append((time.perf_counter() - begun) * 1e3)
    return found


def _config(pods: Pods) -> cri.PodSandboxConfig:
    return pods.config(linux=cri.LinuxPodSandboxConfig(cgroup_parent=f"/{fullnode.cgroup_of(pods.runtime)}"))


def _round(pods: Pods, samples: Samples) -> None:
    config = _config(pods)
    sandbox = str(_timed(samples["RunPodSandbox"], lambda: pods.run(config)))
    container = str(_timed(samples["CreateContainer + StartContainer"], lambda: pods.container(sandbox)))
    _timed(samples["ExecSync"], lambda: pods.exec(container, "true"))
    stop = cri.StopContainerRequest(container_id=container, timeout=0)
    _timed(samples["StopContainer"], lambda: pods.runtime.StopContainer(stop))
    _timed(samples["StopPodSandbox + RemovePodSandbox"], lambda: (pods.stop(sandbox), pods.remove(sandbox)))
    pods.made.remove(sandbox)
