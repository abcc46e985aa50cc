"""Limits that bite: real processes in real cgroups, against the controllers of cgroup v2."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minirt.cgroups import lifecycle, tree
from minirt.cgroups.events import OomWatch, memory_events
from minirt.cgroups.limits import limits, linear
from minirt.cgroups.missing import check, without_missing
from minirt.cgroups.plan import plan_cgroup
from minirt.cgroups.resources import BlockIO, Cpu, Memory, Pids, Resources
from minirt.cgroups.stats import Usage, usage
from minirt.linux import operation

pytestmark = pytest.mark.vm

MI = 1024 * 1024
BUSY_FOR_5_S = "import time\nend = time.monotonic() + 5\nwhile time.monotonic() < end: pass"
HOG = "held = []\nwhile True: held.append(bytearray(1 << 20))"

Limited = Callable[[Resources], str]
Run = Callable[[str, str], "subprocess.Popen[str]"]


@pytest.fixture
def limited() -> Iterator[Limited]:
    """Make the cgroup of a container with limits; it is killed and removed at the end."""
    root = tree.find().root

    def make(resources: Resources) -> str:
        operation.run(plan_cgroup("pod1/c", resources), None)
        return f"{root}/pod1/c"

    yield make
    lifecycle.kill(root)
    lifecycle.remove(root)


@pytest.fixture
def run() -> Iterator[Run]:
    """Run a Python program that was in a cgroup from before its exec on."""
    with contextlib.ExitStack() as stack:

        def start(cgroup: str, program: str) -> "subprocess.Popen[str]":
            enter = 'echo 0 >"$0"/cgroup.procs; exec "$@"'
            command = ["sh", "-c", enter, cgroup, sys.executable, "-ISc", program]
            python = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            stack.enter_context(python)
            stack.callback(python.kill)
            return python

        yield start


def read(cgroup: str, file: str) -> str:
    return Path(cgroup, file).read_text().strip()


def test_every_limit_reaches_its_file(limited: Limited) -> None:
    resources = Resources(
        memory=Memory(limit=64 * MI, reservation=32 * MI, swap=96 * MI),
        cpu=Cpu(shares=512, quota=50000, period=100000, burst=10000, cpus="0", mems="0"),
        pids=Pids(limit=50),
        unified={"memory.oom.group": "1", "memory.high": str(48 * MI)},
    )
    cgroup = limited(resources)
    assert {one.file: read(cgroup, one.file) for one in limits(resources)} == {
        "cpu.weight": "59",
        "cpu.max": "50000 100000",
        "cpu.max.burst": "10000",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "memory.max": str(64 * MI),
        "memory.low": str(32 * MI),
        "memory.swap.max": str(32 * MI),
        "memory.oom.group": "1",
        "memory.high": str(48 * MI),
        "pids.max": "50",
    }


def test_a_pods_weight_is_linear() -> None:
    root = tree.find().root
    operation.run(plan_cgroup("pod1", Resources(cpu=Cpu(shares=1024)), weight=linear), None)
    assert read(f"{root}/pod1", "cpu.weight") == "39"
    lifecycle.remove(root)


def test_a_rate_of_a_disk(limited: Limited) -> None:
    disk = next(Path("/sys/block").glob("vd*"), None)
    if disk is None:
        pytest.skip("no virtio disk")
    major, minor = map(int, (disk / "dev").read_text().split(":"))
    resources = Resources(unified={"io.max": f"{major}:{minor} rbps=1048576"})
    assert read(limited(resources), "io.max") == f"{major}:{minor} rbps=1048576 wbps=max riops=max wiops=max"


def test_this_machine_can_keep_every_limit() -> None:
    resources = Resources(Memory(limit=64 * MI), Cpu(shares=1024, cpus="0"), Pids(limit=5), BlockIO(weight=100))
    check(resources, "web/nginx")
    assert without_missing(resources, "web/nginx") == (resources, [])


def test_half_a_cpu_is_half_a_cpu(limited: Limited, run: Run) -> None:
    cgroup = limited(Resources(cpu=Cpu(quota=50000, period=100000)))
    begun = time.monotonic()
    loops = [run(cgroup, BUSY_FOR_5_S) for _ in range(2)]
    assert [loop.wait() for loop in loops] == [0, 0]
    after, took_s = usage(cgroup), time.monotonic() - begun
    assert after.cpu_usec is not None
    assert after.cpu_usec / 1e6 / took_s == pytest.approx(0.5, rel=0.05)
    assert after.nr_throttled > 0
    assert after.throttled_usec > 0


def test_out_of_memory_is_seen_as_it_happens(limited: Limited, run: Run) -> None:
    cgroup = limited(Resources(memory=Memory(limit=32 * MI, swap=32 * MI)))
    watch = OomWatch.open(cgroup)
    assert watch is not None
    assert watch.oom_kills() == 0
    poll = select.poll()
    poll.register(watch, select.POLLPRI)
    assert poll.poll(0) == []
    hog = run(cgroup, HOG)
    deadline = time.monotonic() + 60
    while not watch.oom_kills():
        assert poll.poll((deadline - time.monotonic()) * 1000), "no kill, and no event"
    assert hog.wait() == -signal.SIGKILL
    assert watch.oom_kills() == 1
    lifecycle.remove(cgroup)
    assert watch.oom_kills() == 1, "what was read last stays true"
    watch.close()


def test_a_group_dies_as_one(limited: Limited, run: Run) -> None:
    memory = Memory(limit=48 * MI, swap=48 * MI)
    cgroup = limited(Resources(memory=memory, unified={"memory.oom.group": "1"}))
    bystander = run(cgroup, "import time; print('ready', flush=True); time.sleep(1000)")
    assert bystander.stdout.readline() == "ready\n"
    run(cgroup, HOG)
    assert bystander.wait(60) == -signal.SIGKILL
    assert memory_events(cgroup)["oom_group_kill"] == 1


def test_no_more_processes_than_allowed(limited: Limited, run: Run) -> None:
    cgroup = limited(Resources(pids=Pids(limit=3)))
    program = (
        "import os, time\n"
        "for made in range(9):\n"
        "    try:\n"
        "        if not os.fork(): time.sleep(1000)\n"
        "    except BlockingIOError: break\n"
        "print(made)"
    )
    assert run(cgroup, program).stdout.read(2) == "2\n"


def test_on_no_other_cpu(limited: Limited, run: Run) -> None:
    last = max(os.sched_getaffinity(0))
    cgroup = limited(Resources(cpu=Cpu(cpus=str(last))))
    assert run(cgroup, "import os; print(os.sched_getaffinity(0))").stdout.read() == f"{{{last}}}\n"


def test_usage_is_read_back_limits_or_not(limited: Limited, run: Run) -> None:
    cgroup = limited(Resources())
    holder = run(cgroup, "import time; held = bytearray(8 << 20); print('ready', flush=True); time.sleep(1000)")
    assert holder.stdout.readline() == "ready\n"
    found = usage(cgroup)
    assert {name for name in Usage.__struct_fields__ if getattr(found, name) is None} <= {
        "memory_limit_bytes",
        "swap_bytes",
    }
    assert found.memory_bytes > 8 * MI
    assert 8 * MI < found.rss_bytes <= found.working_set_bytes <= found.memory_bytes
    assert found.cpu_usec > 0
    assert found.pids == 1


def test_a_cgroup_made_inside_is_removed_too(limited: Limited, run: Run) -> None:
    cgroup = limited(Resources(pids=Pids(limit=100)))
    program = (
        "import os, sys, time\n"
        f"inner = '{cgroup}/own'\n"
        "os.mkdir(inner)\n"
        "open(inner + '/cgroup.procs', 'w').write('0')\n"
        f"open('{cgroup}/cgroup.subtree_control', 'w').write('+pids')\n"
        "print('ready', flush=True)\n"
        "time.sleep(1000)"
    )
    inner = run(cgroup, program)
    assert inner.stdout.readline() == "ready\n"
    assert lifecycle.entrance(cgroup, inner.pid) == f"{cgroup}/own"
    lifecycle.kill(cgroup)
    lifecycle.remove(cgroup)
    assert not os.path.exists(cgroup)
