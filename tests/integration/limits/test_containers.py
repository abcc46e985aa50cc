"""Limits as a container feels them: memory, CPU, processes. They need cgroup v2's controllers: the VM has them."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import Minirt

pytestmark = pytest.mark.vm

ALONE = ("--network", "none")
EATER = "a=x; while :; do a=$a$a; done"
"""A shell that doubles a string until it is killed."""


def inspect(minirt: Minirt, name: str) -> dict:
    return json.loads(minirt.output("inspect", name))[0]


@pytest.fixture
def sleeper(minirt: Minirt, busybox: str) -> Iterator[str]:
    """A running container with every limit."""
    limits = (
        "-m",
        "64m",
        "--memory-swap",
        "96m",
        "--cpus",
        "0.5",
        "-c",
        "512",
        "--pids-limit",
        "20",
        "--cpuset-cpus",
        "0",
    )
    minirt.output("run", "-d", "--name", "sleeper", *ALONE, *limits, busybox, "sleep", "1000")
    yield "sleeper"
    minirt.output("rm", "-f", "sleeper")


def test_limits_are_in_the_cgroup(minirt: Minirt, sleeper: str) -> None:
    cgroup = Path(inspect(minirt, sleeper)["cgroup"])
    found = {
        name: (cgroup / name).read_text().strip()
        for name in ("memory.max", "memory.swap.max", "cpu.max", "cpu.weight", "pids.max", "cpuset.cpus")
    }
    assert found == {
        "memory.max": str(64 << 20),
        "memory.swap.max": str(32 << 20),
        "cpu.max": "50000 100000",
        "cpu.weight": "59",
        "pids.max": "20",
        "cpuset.cpus": "0",
    }


def test_usage_is_read_back(minirt: Minirt, sleeper: str) -> None:
    usage = inspect(minirt, sleeper)["usage"]
    assert usage["memory_bytes"] > 0
    assert usage["pids"] == 1


def test_over_its_memory_limit_it_is_oom_killed(minirt: Minirt, busybox: str) -> None:
    done = minirt("run", "--name", "eater", *ALONE, "-m", "16m", busybox, "sh", "-c", EATER)
    state = inspect(minirt, "eater")["state"]
    minirt.output("rm", "eater")
    assert (done.returncode, state["reason"], state["oom_killed"]) == (137, "OOMKilled", True)
    assert "over its memory limit" in done.stderr


def test_a_child_that_was_oom_killed_does_not_make_a_later_end_one(minirt: Minirt, busybox: str) -> None:
    script = f"sh -c '{EATER}'; echo survived; exec sleep 1000"
    minirt.output("run", "-d", "--name", "parent", *ALONE, "-m", "16m", busybox, "sh", "-c", script)
    with minirt.start("logs", "-f", "parent") as logs:
        assert logs.stdout
        assert any("survived" in line for line in logs.stdout)
        minirt.output("kill", "-s", "KILL", "parent")
        logs.stdout.read()
    state = inspect(minirt, "parent")["state"]
    minirt.output("rm", "parent")
    assert (state["exit_code"], state["reason"]) == (137, "Error")


@pytest.mark.slow
def test_half_a_cpu_is_half_a_cpu(minirt: Minirt, busybox: str) -> None:
    script = "while :; do :; done & while :; do :; done"
    minirt.output("run", "-d", "--name", "busy", *ALONE, "--cpus", "0.5", busybox, "sh", "-c", script)
    cgroup = Path(inspect(minirt, "busy")["cgroup"])
    try:
        before, begun = _cpu(cgroup), time.monotonic()
        with minirt.start("exec", "busy", "sleep", "5") as five_seconds:
            five_seconds.wait()
        after, seconds = _cpu(cgroup), time.monotonic() - begun
    finally:
        minirt.output("rm", "-f", "busy")
    used = (after["usage_usec"] - before["usage_usec"]) / 1e6 / seconds
    assert after["nr_throttled"] > 0
    assert used == pytest.approx(0.5, rel=0.05)


def _cpu(cgroup: Path) -> dict[str, int]:
    lines = (cgroup / "cpu.stat").read_text().splitlines()
    return {key: int(value) for key, value in (line.split() for line in lines)}


def test_six_mebibytes_are_enough_to_start_and_exec(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--name", "small", *ALONE, "-m", "6m", busybox, "sleep", "1000")
    try:
        assert minirt.output("exec", "small", "sh", "-c", "echo ok") == "ok"
    finally:
        minirt.output("rm", "-f", "small")
    assert minirt.output("run", "--rm", *ALONE, "-m", "6m", busybox, "sh", "-c", "echo ok") == "ok"


def test_no_more_processes_than_allowed(minirt: Minirt, busybox: str) -> None:
    script = "for n in 1 2 3 4 5 6 7 8; do sleep 10 & done; echo all"
    done = minirt("run", "--rm", *ALONE, "--pids-limit", "5", busybox, "sh", "-c", script)
    assert "can't fork" in done.stderr


@pytest.mark.needs("nft")
def test_a_pod_shares_its_limits(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    manifest = tmp_path / "pod.yaml"
    container = (
        "{{name: {0}, image: %s, imagePullPolicy: Never, command: [sleep, '1000'], "
        "resources: {{limits: {{cpu: 250m, memory: 32Mi}}}}}}"
    )
    container %= busybox
    manifest.write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: limited}\nspec:\n  terminationGracePeriodSeconds: 0\n"
        f"  containers: [{container.format('one')}, {container.format('two')}]\n"
    )
    minirt.output("pod", "run", "-d", manifest)
    try:
        pod = json.loads(minirt.output("pod", "inspect", "limited"))[0]
        top = Path(pod["cgroup"])
        assert (top / "memory.max").read_text().strip() == str(64 << 20)
        assert (top / "cpu.max").read_text().strip() == "50000 100000"
        for one in pod["containers"]:
            cgroup = Path(one["cgroup"])
            assert cgroup.parent == top
            assert (cgroup / "memory.max").read_text().strip() == str(32 << 20)
            assert (cgroup / "memory.oom.group").read_text().strip() == "1"
            assert (cgroup / "memory.swap.max").read_text().strip() == "0"
            assert (cgroup / "cpu.max").read_text().strip() == "25000 100000"
            assert (cgroup / "cpu.weight").read_text().strip() == "35"
    finally:
        minirt.output("pod", "rm", "-f", "limited")


@pytest.mark.needs("nft")
def test_a_pods_container_over_its_limit_is_oom_killed(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: eater}\nspec:\n  restartPolicy: Never\n"
        f"  containers: [{{name: one, image: {busybox}, imagePullPolicy: Never, command: [sh, -c, '{EATER}'], "
        "resources: {limits: {memory: 16Mi}}}]\n"
    )
    done = minirt("pod", "run", manifest)
    assert done.returncode == 137
    assert "OOMKilled" in done.stderr
