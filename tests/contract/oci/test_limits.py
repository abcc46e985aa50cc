"""Limits as the container feels them, and how they are changed and told of. They need cgroup v2's controllers.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config-linux.md#control-groups
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import leaks
from tests.contract.oci.container import Container
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.vm, pytest.mark.peer]

EATER = "a=x; while :; do a=$a$a; done"
"""A shell that doubles a string until it is killed."""
NO_EVENTS = pytest.mark.differs("crun", "it has no events")
MIB = 1 << 20


def limited(container: Container, **resources: Any) -> Container:
    container.linux["resources"] = resources
    return container


def directory(container: Container) -> Path:
    """Return the container's cgroup."""
    return leaks.cgroup2_tops()[0] / container.linux["cgroupsPath"].lstrip("/")


def value(container: Container, file: str) -> str:
    return (directory(container) / file).read_text().strip()


def values(container: Container, wanted: dict[str, str]) -> dict[str, str]:
    """Return what the files of ``wanted`` hold."""
    return {file: value(container, file) for file in wanted}


def test_what_is_written(container: Container) -> None:
    """All limits at once: the VM is slow."""
    limited(
        container,
        memory={"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
        cpu={"quota": 20000, "period": 50000, "cpus": "0", "mems": "0"},
        pids={"limit": 20},
        blockIO={"weight": 10},
        hugepageLimits=[{"pageSize": "2MB", "limit": 4 * MIB}],
        unified={"memory.high": str(48 * MIB), "pids.max": "33"},
    ).create()
    wanted = {
        "memory.max": str(64 * MIB),
        "memory.swap.max": str(32 * MIB),
        "memory.low": str(32 * MIB),
        "cpu.max": "20000 50000",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "hugetlb.2MB.max": str(4 * MIB),
        "memory.high": str(48 * MIB),
        "pids.max": "33",
    }
    if (directory(container) / "io.weight").exists():
        wanted["io.weight"] = "default 1"
    assert values(container, wanted) == wanted


@pytest.mark.differs("runc", "1.1 has neither")
def test_bursts_and_idling(container: Container) -> None:
    limited(container, cpu={"quota": 20000, "period": 50000, "burst": 10000, "idle": 1}).create()
    assert (value(container, "cpu.max.burst"), value(container, "cpu.idle")) == ("10000", "1")


def disk() -> tuple[int, int]:
    """Return the numbers of a disk of this machine's."""
    found = next(path for path in Path("/sys/block").iterdir() if path.name.startswith(("vd", "sd", "nvme")))
    major, minor = map(int, (found / "dev").read_text().split(":"))
    return major, minor


def test_a_block_devices_rates(container: Container) -> None:
    major, minor = disk()
    names = ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS")
    devices = {
        f"throttle{name}Device": [{"major": major, "minor": minor, "rate": MIB + number}]
        for number, name in enumerate(names)
    }
    limited(container, blockIO=devices).create()
    told = f"{major}:{minor} rbps={MIB} wbps={MIB + 1} riops={MIB + 2} wiops={MIB + 3}"
    assert value(container, "io.max") == told


def test_too_much_memory_is_killed(container: Container) -> None:
    limited(container, memory={"limit": 16 * MIB, "swap": 16 * MIB}).script(EATER)
    assert container.run().returncode == 137


def test_no_more_processes_than_allowed(container: Container) -> None:
    limited(container, pids={"limit": 5})
    done = container.script("for n in 1 2 3 4 5 6 7 8; do sleep 10 & done; echo all").run()
    assert "can't fork" in done.stderr


def test_no_more_cpu_than_allowed(container: Container) -> None:
    limited(container, cpu={"quota": 10000, "period": 100000}).script("while :; do :; done").create().start()

    def throttled() -> bool:
        words = dict(line.split() for line in value(container, "cpu.stat").splitlines())
        return int(words["nr_throttled"]) > 2

    await_true(throttled, "a pause for its quota")


@pytest.fixture
def small(container: Container) -> Container:
    """A running container with a limit of each kind."""
    return limited(
        container,
        memory={"limit": 64 * MIB, "swap": 64 * MIB},
        cpu={"quota": 20000, "period": 50000},
        pids={"limit": 20},
    ).create()


def test_update_by_options(small: Container) -> None:
    for options in (
        ("--memory", str(32 * MIB), "--memory-swap", str(48 * MIB)),
        ("--memory-reservation", str(16 * MIB)),
        ("--pids-limit", "7"),
        ("--cpu-share", "2"),
        ("--cpuset-cpus", "0", "--cpuset-mems", "0"),
    ):
        done = small.runtime("update", *options, small.name)
        assert done.returncode == 0, done.stderr
    wanted = {
        "memory.max": str(32 * MIB),
        "memory.swap.max": str(16 * MIB),
        "memory.low": str(16 * MIB),
        "pids.max": "7",
        "cpu.weight": "1",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "cpu.max": "20000 50000",
    }
    assert values(small, wanted) == wanted


@pytest.mark.differs("crun", "it takes what is not named as 100000 and no limit")
def test_update_keeps_the_other_half_of_a_bandwidth(small: Container) -> None:
    for option, number, written in (
        ("--cpu-quota", "10000", "10000 50000"),
        ("--cpu-period", "40000", "10000 40000"),
        ("--cpu-quota", "-1", "max 40000"),
    ):
        assert small.runtime("update", option, number, small.name).returncode == 0
        assert value(small, "cpu.max") == written


@pytest.mark.differs("crun", "it has no --cpu-idle")
@pytest.mark.differs("runc", "1.1 has no --cpu-idle")
def test_update_to_idle(small: Container) -> None:
    """Newer ones have."""
    assert small.runtime("update", "--cpu-idle", "1", small.name).returncode == 0
    assert value(small, "cpu.idle") == "1"


def update(container: Container, at: Path | str, resources: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    text = json.dumps(resources)
    if isinstance(at, Path):
        at.write_text(text)
    command = container.runtime.command("update", "--resources", at, container.name)
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


def test_update_by_a_document(small: Container, tmp_path: Path) -> None:
    asked = {
        "memory": {"limit": 32 * MIB, "swap": 48 * MIB},
        "pids": {"limit": 9},
        "cpu": {"quota": 30000, "period": 60000},
    }
    assert update(small, tmp_path / "resources.json", asked).returncode == 0
    wanted = {
        "memory.max": str(32 * MIB),
        "memory.swap.max": str(16 * MIB),
        "pids.max": "9",
        "cpu.max": "30000 60000",
    }
    assert values(small, wanted) == wanted
    assert update(small, "-", {"pids": {"limit": 8}}).returncode == 0, "from stdin"
    assert values(small, wanted) == wanted | {"pids.max": "8"}, "and nothing else is changed"


def test_update_is_felt(small: Container) -> None:
    small.start()
    small.runtime("update", "--pids-limit", "1", small.name)
    assert small.exec("sh", "-c", "sleep 1 & echo").returncode != 0


@pytest.mark.differs("runc", "1.1 does not know it")
def test_update_to_less_than_is_used_is_checked_on_demand(small: Container, tmp_path: Path) -> None:
    """The specification's `checkBeforeUpdate`."""
    asked = {"memory": {"limit": 4096, "swap": 4096, "checkBeforeUpdate": True}}
    assert update(small, tmp_path / "resources.json", asked).returncode != 0
    assert value(small, "memory.max") == str(64 * MIB)


@NO_EVENTS
def test_statistics_tell_the_limits(small: Container) -> None:
    data = json.loads(small.runtime("events", "--stats", small.name).stdout)["data"]
    assert data["memory"]["usage"]["limit"] == 64 * MIB
    assert data["memory"]["usage"]["usage"] > 0
    assert data["pids"]["limit"] == 20
    assert data["pids"]["current"] >= 1, "runc's init has threads"
    assert data["cpu"]["usage"]["total"] >= data["cpu"]["usage"]["kernel"] > 0


@NO_EVENTS
def test_an_event_of_too_little_memory(container: Container) -> None:
    script = f"trap : USR1; while :; do sleep 0.1; [ ! -e /tmp/go ] || sh -c '{EATER}'; done"
    limited(container, memory={"limit": 16 * MIB, "swap": 16 * MIB}).script(script).create().start()
    command = container.runtime.command("events", "--interval", "200ms", container.name)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as told:
        assert told.stdout
        assert json.loads(told.stdout.readline())["type"] == "stats"
        container.exec("sh", "-c", "echo >/tmp/go")
        assert any(json.loads(line)["type"] == "oom" for line in told.stdout)
        container.stop()
        assert all(json.loads(line)["id"] == container.name for line in told.stdout)
    assert told.returncode == 0


def test_devices_that_may_be_used(container: Container) -> None:
    """A node may be made of any; what may be opened is what the rules say, the last of them first."""
    everything = {"allow": False, "access": "rwm"}
    major, minor = disk()
    readable = {"allow": True, "type": "b", "major": major, "minor": minor, "access": "r"}
    limited(container, devices=[everything, readable])
    container.linux["devices"] = [
        {"path": "/dev/disk", "type": "b", "major": major, "minor": minor},
        {"path": "/dev/other", "type": "b", "major": 7, "minor": 0},
    ]
    container.script(
        "head -c 1 /dev/disk | wc -c; (: >>/dev/disk) 2>/dev/null || echo not written; "
        "(: </dev/other) 2>/dev/null || echo not read; echo >/dev/null && echo null"
    )
    assert container.run().stdout.splitlines() == ["1", "not written", "not read", "null"]
