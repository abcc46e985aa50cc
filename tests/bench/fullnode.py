"""A node full of pods, on ``minirt serve`` and on containerd: how fast they start, what memory they take, their lists.

All are as a kubelet makes them, with one container each, and started 8 at a time. Then minirt's server is killed while
it is being asked, and started anew: it must know every container, and none may have noticed. For the lists more
containers are made, until there are 200.
"""

import contextlib
import itertools
import json
import os
import signal
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from minirt.crimessages import api_pb2 as cri
from tests.bench.measure import Result, Results, Timing
from tests.peers.containerd import Containerd
from tests.peers.cri import SLEEP, Pods, Runtime
from tests.peers.daemon import await_true
from tests.peers.serve import Server

AT_A_TIME = 8
LISTED, LISTS_A_RUN = 200, 10
IDLE_S = 3.0
"""Both runtimes' shims tidy up when nothing is asked of them."""
COUNTING = 4
"""So many containers write numbers all the time, to be looked through for gaps."""
COUNT = ("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done")
ANSWERS = 100
"""After so many the server is killed."""
LABEL = "command"
SERVER_MB, RESTART_MS = 80.0, 1000.0
OWN_PID = cri.NamespaceOption(pid=cri.NamespaceMode.CONTAINER)
"""As a kubelet asks for by default."""


def bench(place: Path, server: Server, containerd: Containerd, count: int, runs: int) -> list[Result | Results]:
    """Return the ratios of the time and of the lists, and figures of memory and of a restart, with ``count`` pods."""
    pods = {
        "ours": _started(Runtime("minirt", server.socket), place / "full-minirt", count),
        "theirs": _started(Runtime("containerd", containerd.socket), place / "full-containerd", count),
    }
    try:
        (ours, first), (_, second) = pods.values()
        title = f"{count} pods, {AT_A_TIME} at a time"
        return [
            Result(title, "containerd", Timing((first,)), Timing((second,)), 0.6),
            _memory(server, containerd, count),
            _restart(server, ours),
            *_lists(ours, pods["theirs"][0], runs),
        ]
    finally:
        for each, _ in pods.values():
            each.close()
            each.runtime.close()


def _started(runtime: Runtime, logs: Path, count: int) -> tuple[Pods, float]:
    """Start the pods; return them, and how long it took in milliseconds."""
    logs.mkdir()
    pods = Pods(runtime, logs)
    context = cri.LinuxSandboxSecurityContext(namespace_options=OWN_PID)
    linux = cri.LinuxPodSandboxConfig(cgroup_parent=f"/{cgroup_of(runtime)}", security_context=context)
    work = [(_of_a_kubelet(pods.config(linux=linux)), COUNT if one < COUNTING else SLEEP) for one in range(count)]
    begun = time.perf_counter()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(lambda one: pods.container(pods.run(one[0]), *one[1], **_labels(one[0], one[1][0])), work))
    return pods, (time.perf_counter() - begun) * 1e3


def _of_a_kubelet(config: cri.PodSandboxConfig) -> cri.PodSandboxConfig:
    """Return a sandbox's configuration with the labels and annotations of a kubelet's pod."""
    config.labels.update({"app": config.hostname, **_pod(config)})
    config.annotations.update(
        {
            "kubernetes.io/config.seen": "2026-01-01T00:00:00.000000000Z",
            "kubernetes.io/config.source": "api",
        }
    )
    return config


def _pod(config: cri.PodSandboxConfig) -> dict[str, str]:
    about = config.metadata
    return {f"io.kubernetes.pod.{key}": getattr(about, key) for key in ("name", "namespace", "uid")}


def _labels(pod: cri.PodSandboxConfig, command: str) -> dict[str, dict[str, str]]:
    """Return the labels and annotations that a kubelet gives a container, and what it runs."""
    prefix = "io.kubernetes.container"
    return {
        "labels": {LABEL: command, f"{prefix}.name": "main", **_pod(pod)},
        "annotations": {
            f"{prefix}.hash": "5f1b2c3d",
            f"{prefix}.restartCount": "0",
            f"{prefix}.terminationMessagePath": "/dev/termination-log",
            f"{prefix}.terminationMessagePolicy": "File",
            "io.kubernetes.pod.terminationGracePeriod": "30",
        },
    }


def _lists(ours: Pods, theirs: Pods, runs: int) -> list[Result]:
    """Return the ratios of the list calls, by turns; the containers that are missing to LISTED are made first."""
    for pods in (ours, theirs):
        for sandbox in itertools.islice(itertools.cycle(pods.made), max(0, LISTED - len(pods.containers()))):
            pods.create(sandbox, **_labels(pods.configs[sandbox], SLEEP[0]))
    calls = {
        f"ListContainers of {len(ours.containers())}": Pods.containers,
        f"ListPodSandbox of {len(ours.sandboxes())}": Pods.sandboxes,
    }
    samples = {(name, pods): list[float]() for name in calls for pods in (ours, theirs)}
    for _ in range(runs * LISTS_A_RUN):
        for (name, pods), into in samples.items():
            begun = time.perf_counter()
            calls[name](pods)
            into.append((time.perf_counter() - begun) * 1e3)
    timings = {key: Timing(tuple(into)) for key, into in samples.items()}
    return [Result(name, "containerd", timings[name, ours], timings[name, theirs], 1.0) for name in calls]


def cgroup_of(runtime: Runtime) -> str:
    """Return the cgroup of a runtime's pods: a new server of minirt ends what is in its own and unknown to it."""
    return os.environ["MINIRT_CGROUP"] + ("-peer" if runtime.name == "containerd" else "")


def _memory(server: Server, containerd: Containerd, count: int) -> Results:
    time.sleep(IDLE_S)
    own, peers = _pss_mb([server.daemon.process.pid]), _pss_mb([containerd.pid])
    shim, theirs = _pss_mb(_shims(server)), _pss_mb(_peers_shims(containerd))
    return Results(
        (
            (f"memory of the server with {count} pods: {own:.0f} MB; target {SERVER_MB:.0f}", own <= SERVER_MB),
            (f"memory of a pod's shim: {shim / theirs:.2f} of containerd's; target 1.0", shim <= theirs),
        ),
        (f"minirt     {own:6.1f} MB  {shim:5.2f} MB a shim", f"containerd {peers:6.1f} MB  {theirs:5.2f} MB a shim"),
    )


def _shims(server: Server) -> list[int]:
    records = (server.minirt.state / "sandboxes").glob("*/sandbox.json")
    return [json.loads(path.read_text())["shim"][0] for path in records]


def _peers_shims(containerd: Containerd) -> list[int]:
    mark = str(containerd.socket).encode()
    lines = {path: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")}
    return [int(path.parent.name) for path, line in lines.items() if b"containerd-shim" in line and mark in line]


def _pss_mb(pids: Iterable[int]) -> float:
    """Return the mean of the processes' own memory, with their part of what they share, in MB."""
    found = [_pss_kb(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in pids]
    return sum(found) / len(found) / 1024


def _pss_kb(rollup: str) -> int:
    return int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])


def _restart(server: Server, pods: Pods) -> Results:
    """Kill the server while it is being asked; return how long the next one takes to list the same."""
    before = _world(pods)
    answered: list[str] = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        asking = [pool.submit(_ask_until_it_ends, pods, before[1], answered) for _ in range(AT_A_TIME)]
        await_true(lambda: len(answered) > ANSWERS, "answers")
        os.kill(server.daemon.process.pid, signal.SIGKILL)
        begun = time.perf_counter()
        server.daemon.process.wait()
        for each in asking:
            each.result()
    pods.runtime.close()
    server.start()
    pods.runtime = Runtime("minirt", server.socket)
    is_same = _world(pods) == before
    took_ms = (time.perf_counter() - begun) * 1e3
    gaps = [one for one in before[1] if one.labels[LABEL] == COUNT[0] and not _counts_on(pods, one)]
    said = f"killed under load, and started anew: {len(before[1])} containers listed after {took_ms:.0f} ms"
    return Results(
        (
            (f"{said}; target {RESTART_MS:.0f}", is_same and took_ms <= RESTART_MS),
            (f"{COUNTING - len(gaps)} of {COUNTING} logs go on without a gap", not gaps),
        ),
        (f"{len(answered)} calls were answered before, and {AT_A_TIME} were under way",),
    )


def _world(pods: Pods) -> tuple[list[cri.PodSandbox], list[cri.Container]]:
    containers = pods.runtime.ListContainers(cri.ListContainersRequest()).containers
    return list(pods.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items), list(containers)


def _ask_until_it_ends(pods: Pods, containers: list[cri.Container], answered: list[str]) -> None:
    """Ask for statuses and execute commands for as long as the server answers."""
    with contextlib.suppress(grpc.RpcError):
        for number, one in enumerate(itertools.cycle(containers)):
            pods.exec(one.id, "true") if number % 4 == 3 else pods.status(one.id)
            answered.append(one.id)


def _counts_on(pods: Pods, container: cri.Container) -> bool:
    """Say whether a log has every number, and has grown by some."""
    seen = len(pods.log(container.id).split())
    await_true(lambda: len(pods.log(container.id).split()) > seen + 5, "more numbers")
    numbers = [int(word) for word in pods.log(container.id).split()]
    return numbers == list(range(1, len(numbers) + 1))
