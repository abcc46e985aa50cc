"""A ready pod of two containers: ``minirt pod run -d`` and ``podman kube play``, from the call until both run.

Removing the pod again is not timed, nor is what goes on after it: podman's containers are cleaned up by processes that
outlive ``kube down``, and the next pod waits until they have ended.
"""

import subprocess
from pathlib import Path

from minirt.shim.zygote import Zygote
from tests.bench.cold import import_image
from tests.bench.measure import Result, Timing
from tests.command import COMMAND
from tests.peers import busybox
from tests.peers.podman import Podman

MANIFEST = f"""
apiVersion: v1
kind: Pod
metadata: {{name: bench}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - {{name: one, image: {busybox.NAME}, imagePullPolicy: Never, command: [sleep, "1000"]}}
    - {{name: two, image: {busybox.NAME}, imagePullPolicy: Never, command: [sleep, "1000"]}}
"""


def bench(place: Path, root: Path, zygote: Zygote, runs: int) -> Result:
    """Return the ratio of a pod run by us to one played by podman."""
    import time

    import_image(root)
    place.mkdir()
    manifest = place / "pod.yaml"
    manifest.write_text(MANIFEST)
    archives = [
        busybox.archive(place / "busybox.tar", root),
        busybox.archive(place / "pause.tar", root, name=busybox.PAUSE, command=("/bin/sleep", "1000000")),
    ]
    podman = Podman(place / "podman", archives, busybox.PAUSE)
    ours, theirs = [], []
    try:
        for number in range(runs + 2):
            begun = time.perf_counter()
            _run([COMMAND, "pod", "run", "-d", "--best-effort-limits", manifest])
            middle = time.perf_counter()
            _run([COMMAND, "pod", "rm", "-f", "bench"])
            again = time.perf_counter()
            podman.output("kube", "play", manifest)
            ended = time.perf_counter()
            podman.output("kube", "down", manifest)
            _await_end_of(str(podman.directory))
            if number >= 2:
                ours.append((middle - begun) * 1e3)
                theirs.append((ended - again) * 1e3)
    finally:
        podman.close()
    return Result("ready pod of two containers", "podman", Timing(tuple(ours)), Timing(tuple(theirs)), 0.6)


def _await_end_of(word: str) -> None:
    """Wait until no process has ``word`` in its command line."""
    while any(word.encode() in _command_line(entry) for entry in Path("/proc").glob("[0-9]*/cmdline")):
        pass


def _command_line(entry: Path) -> bytes:
    try:
        return entry.read_bytes()
    except OSError:
        return b""


def _run(command: list[str | Path]) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
