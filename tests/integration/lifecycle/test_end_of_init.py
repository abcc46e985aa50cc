"""A container's life is its init's: when init ends, everything of it ends, wherever it has gone to hide.

Each case takes away what would end the others by itself: with ``--pid host`` no PID namespace dies with init, and who
has called setsid, or lives in a cgroup below, is in no process group and in no list of the container's cgroup.
"""

import os
from pathlib import Path

import pytest

from tests.command import Minirt
from tests.integration.lifecycle.watching import (
    ALONE,
    await_line,
    await_log,
    children_of,
    inspected,
    pids_of,
    rest_of,
    shim_of,
    started,
)
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

HELD = "echo ready; read line; exit 3"
DAEMON = "setsid sleep 1000 &"
IGNORANT = "(trap '' TERM HUP INT; setsid sleep 1000) &"
"""It ignores whatever can be ignored."""
BELOW = """
    mkdir -p /sys/fs/cgroup/below/deeper
    sleep 1000 & echo $! > /sys/fs/cgroup/below/cgroup.procs
    setsid sleep 1000 & echo $! > /sys/fs/cgroup/below/deeper/cgroup.procs
"""
FROZEN = f"{BELOW} echo 1 > /sys/fs/cgroup/below/cgroup.freeze;"
MOVED = "mkdir /sys/fs/cgroup/init; echo $$ > /sys/fs/cgroup/init/cgroup.procs; sleep 1000 &"


@pytest.mark.parametrize(
    ("flags", "script", "processes"),
    [
        ([], DAEMON, 2),
        (["--pid", "host"], DAEMON, 2),
        (["--pid", "host"], IGNORANT, 2),
        (["--pid", "host", "--privileged"], BELOW, 3),
        (["--pid", "host", "--privileged"], FROZEN, 3),
        (["--pid", "host", "--privileged"], MOVED, 2),
    ],
    ids=["daemon", "host pids", "ignores signals", "cgroups below", "frozen", "init moved"],
)
def test_whatever_init_leaves_ends_with_it(
    minirt: Minirt, busybox: str, flags: list[str], script: str, processes: int
) -> None:
    words = ["run", "-i", "--name", "one", *ALONE, *flags, busybox, "sh", "-c", f"{script} {HELD}"]
    with started(minirt, *words, stdin=-1) as client:
        await_line(client)
        found = inspected(minirt, "one")
        await_true(lambda: len(pids_of(minirt, "one")) >= processes, "all of the container's processes")
        pids = pids_of(minirt, "one")
        rest_of(client, "\n")
        assert client.returncode == 3
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert not Path(found["cgroup"]).exists()
    assert minirt.output("wait", "one") == "3"
    minirt.output("rm", "one")


def test_orphans_are_reaped_by_the_shim_where_it_is_their_parent(minirt: Minirt, busybox: str) -> None:
    script = "for i in 1 2 3 4 5; do (setsid true &); done; echo ready; sleep 1000 & wait"
    minirt.output("run", "-d", "--name", "one", *ALONE, "--pid", "host", busybox, "sh", "-c", script)
    await_log(minirt, "one")
    init = pids_of(minirt, "one")[0]
    await_true(lambda: list(children_of(shim_of(init))) == [init], "the shim has no child but init")
    minirt.output("rm", "-f", "one")


def test_an_orphan_in_a_pid_namespace_is_its_inits_and_no_zombie_stays_after_exec(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "sh", "-c", "while :; do wait; sleep 0.01; done")
    minirt.output("exec", "one", "sh", "-c", "(setsid true &); true")
    init = pids_of(minirt, "one")[0]
    assert children_of(shim_of(init)).keys() == {init}
    await_true(lambda: "Z" not in children_of(init).values(), "init has no zombies")
    minirt.output("rm", "-f", "one")


def test_an_execd_process_ends_with_init_too(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--name", "one", *ALONE, "--pid", "host", busybox, "sleep", "1000")
    with started(minirt, "exec", "one", "sh", "-c", "trap '' TERM; echo ready; sleep 1000 & wait") as client:
        await_line(client)
        pids = pids_of(minirt, "one")
        minirt.output("kill", "one")
        client.wait(20)
        assert client.returncode == 137
    assert minirt.output("wait", "one") == "137"
    assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []
    minirt.output("rm", "one")
