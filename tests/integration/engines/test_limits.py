"""Limits that users give to docker, podman and containerd, on their own runtime and on minirt-oci; in the VM."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.engines.conftest import Engine
from tests.peers import busybox
from tests.peers.containerd import Containerd
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.vm, pytest.mark.peer]

EATER = "a=x; while :; do a=$a$a; done"
"""A shell that doubles a string until it is killed."""
LITTLE = ("--memory", "32m", "--memory-swap", "32m")
"""With half of it runc 1.1 itself is killed at times, before the program is started."""


@pytest.fixture(scope="module")
def limited(engine: Engine) -> Iterator[str]:
    """A container with a limit of each kind, which sees its own cgroup."""
    flags = ("--memory", "64m", "--memory-swap", "64m", "--cpus", "0.5", "--pids-limit", "20", "--cgroupns", "private")
    made = engine.background("sleep", "1000", flags=flags)
    yield made
    engine("rm", "--force", made)


def limits(engine: Engine, container: str) -> list[str]:
    names = ("memory.max", "memory.swap.max", "cpu.max", "pids.max")
    files = [f"/sys/fs/cgroup/{name}" for name in names]
    return engine.output("exec", container, "cat", *files).splitlines()


def test_they_are_kept(engine: Engine, limited: str) -> None:
    assert limits(engine, limited) == [str(64 << 20), "0", "50000 100000", "20"]


def test_usage_is_told(engine: Engine, limited: str) -> None:
    told = engine.output("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", limited)
    used, _, rest = told.partition(" / ")
    assert used
    assert rest.split() in (["64MiB", "1"], ["67.11MB", "1"])


def test_other_ones_are_kept_from_then_on(engine: Engine, limited: str) -> None:
    engine.output("update", "--memory", "32m", "--memory-swap", "48m", "--pids-limit", "9", limited)
    assert limits(engine, limited) == [str(32 << 20), str(16 << 20), "50000 100000", "9"]


def test_too_much_memory(engine: Engine, request: pytest.FixtureRequest) -> None:
    made = engine.background("sh", "-c", f"until [ -e /tmp/go ]; do sleep 0.1; done; {EATER}", flags=LITTLE)
    request.addfinalizer(lambda: engine("rm", "--force", made))
    engine("exec", made, "touch", "/tmp/go")
    await_true(lambda: engine.inspect(made, "{{.State.Running}}") == "false", "the end", 60)
    assert engine.inspect(made, "{{.State.ExitCode}} {{.State.OOMKilled}}") == "137 true"


def test_a_child_that_takes_too_much_memory(engine: Engine) -> None:
    assert engine.run("sh", "-c", f"sh -c '{EATER}'; echo $?", flags=LITTLE).stdout.split() == ["137"]


def test_containerd(ctr: Containerd, chosen: tuple[str, ...]) -> None:
    ctr.output("run", "--detach", *chosen, "--memory-limit", str(64 << 20), busybox.NAME, "one", "sleep", "1000")
    told = json.loads(ctr.output("tasks", "metrics", "--format", "json", "one"))
    assert told["memory"]["usage_limit"] == str(64 << 20) or int(told["memory"]["usage_limit"]) == 64 << 20
    assert int(told["pids"]["current"]) == 1
    pid = next(line.split()[1] for line in ctr.output("tasks", "list").splitlines() if line.startswith("one"))
    assert Path(f"/proc/{pid}/cgroup").read_text().strip().endswith("/one")


def test_containerd_and_too_much_memory(ctr: Containerd, chosen: tuple[str, ...]) -> None:
    limit = ("--memory-limit", str(16 << 20))
    done = ctr("run", "--rm", *chosen, *limit, busybox.NAME, "one", "sh", "-c", EATER)
    assert done.returncode == 137, done.stderr
