"""Containers seen from outside: a client that is talked to, and what the kernel says of a container's processes."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minirt.cgroups import lifecycle
from tests.command import Minirt
from tests.peers.daemon import await_true

END_S = 20.0
ALONE = ("--network", "none")


@contextlib.contextmanager
def started(minirt: Minirt, *words: str | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run ``minirt words…`` beside the block; it is killed if it has not ended by then."""
    with minirt.start(*words, **options) as client:
        try:
            yield client
        finally:
            if client.poll() is None:
                client.kill()


def await_line(client: subprocess.Popen[str], wanted: str = "ready") -> None:
    """Read a client's stdout up to a line."""
    assert client.stdout
    seen = []
    for line in client.stdout:
        seen.append(line)
        if line.strip() == wanted:
            return
    raise AssertionError(f"its output ended without {wanted!r}: {seen}")


def rest_of(client: subprocess.Popen[str], typed: str = "") -> str:
    """Give a client its last input, read its stdout to the end and await its exit; return what was read."""
    assert client.stdout
    if client.stdin:
        client.stdin.write(typed)
        client.stdin.close()
    rest = client.stdout.read()
    client.wait(END_S)
    return rest


def await_log(minirt: Minirt, name: str, wanted: str = "ready") -> None:
    """Wait until a container has written a line."""
    await_true(lambda: wanted in minirt.output("logs", name).splitlines(), f"{wanted!r} in the log of {name}")


def inspected(minirt: Minirt, name: str) -> dict[str, Any]:
    """Return what ``minirt inspect`` says of a container."""
    found: dict[str, Any] = json.loads(minirt.output("inspect", name))[0]
    return found


def pids_of(minirt: Minirt, name: str) -> list[int]:
    """Return a container's processes by their host pids, its init first."""
    found = inspected(minirt, name)
    init = found["state"]["pid"]
    return [init, *(pid for pid in lifecycle.pids(found["cgroup"]) if pid != init)]


def shim_of(pid: int) -> int:
    """Return the shim of a container whose init is ``pid``: its parent."""
    return int(_stat(pid)[1])


def children_of(pid: int) -> dict[int, str]:
    """Return the children of a single-threaded process, each with its state (S, R, Z, …)."""
    found = {}
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        with contextlib.suppress(OSError):
            found[child] = _stat(child)[0]
    return found


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def is_writing(pid: int) -> bool:
    """Say whether a process waits for somebody to read from its pipe."""
    return "pipe_write" in Path(f"/proc/{pid}/wchan").read_text()


def contents(minirt: Minirt) -> set[str]:
    """Return every file and non-empty directory of a minirt, but for locks, caches and what only images are made of."""
    found = set()
    for top in (minirt.root, minirt.state):
        for where, _, names in os.walk(top):
            found |= {f"{where}/{name}" for name in names if not name.endswith((".lock", ".bpf"))}
    return found
