"""What a container leaves behind: nothing with --rm, whoever is there to see it end; else what rm takes away."""

import os
import signal
from pathlib import Path

import pytest

from tests.command import Minirt
from tests.integration.lifecycle.watching import (
    ALONE,
    await_line,
    await_log,
    contents,
    inspected,
    pids_of,
    shim_of,
    started,
)
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

HELD = "echo ready; until [ -e /share/go ]; do sleep 0.02; done; exit 3"


def test_rm_leaves_nothing_of_it(minirt: Minirt, busybox: str) -> None:
    before = contents(minirt)
    done = minirt("run", "--rm", "--name", "one", *ALONE, busybox, "sh", "-c", "echo x > /file; echo y; exit 3")
    assert done.returncode == 3
    assert contents(minirt) == before


def test_detached_with_rm_it_is_gone_once_it_has_ended_by_itself(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    before = contents(minirt)
    words = ["--name", "one", *ALONE, "-v", f"{tmp_path}:/share", busybox, "sh", "-c", HELD]
    minirt.output("run", "-d", "--rm", *words)
    await_log(minirt, "one")
    (tmp_path / "go").touch()
    await_true(lambda: contents(minirt) == before, "nothing is left")
    assert minirt.output("ps", "-aq") == ""


def test_wait_has_the_code_of_a_container_that_is_removed_at_its_end(minirt: Minirt, busybox: str) -> None:
    script = "trap 'exit 6' USR1; echo ready; sleep 1000 & wait"
    minirt.output("run", "-d", "--rm", "--name", "one", *ALONE, busybox, "sh", "-c", script)
    await_log(minirt, "one")
    with started(minirt, "wait", "one") as waiting:
        shim = shim_of(pids_of(minirt, "one")[0])
        await_true(lambda: _connections(shim) > 1, "somebody waits at the shim")
        minirt.output("kill", "-s", "USR1", "one")
        assert waiting.stdout
        assert waiting.stdout.read() == "6\n"
    await_true(lambda: not minirt.output("ps", "-aq"), "the container's removal")


def _connections(pid: int) -> int:
    """Return how many sockets a process has open."""
    fds = Path(f"/proc/{pid}/fd")
    return sum(os.readlink(fd).startswith("socket:") for fd in fds.iterdir())


def test_with_rm_a_killed_client_is_no_reason_to_leave_anything(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    before = contents(minirt)
    words = ["run", "--rm", *ALONE, "-v", f"{tmp_path}:/share", busybox, "sh", "-c", HELD]
    with started(minirt, *words) as client:
        await_line(client)
        client.kill()
    assert len(minirt.output("ps", "-q").split()) == 1
    (tmp_path / "go").touch()
    await_true(lambda: contents(minirt) == before, "nothing is left")


def test_a_killed_client_neither_ends_its_container_nor_loses_the_code(
    minirt: Minirt, busybox: str, tmp_path: Path
) -> None:
    words = ["run", "--name", "one", *ALONE, "-v", f"{tmp_path}:/share", busybox, "sh", "-c", HELD]
    with started(minirt, *words) as client:
        await_line(client)
        client.kill()
    assert inspected(minirt, "one")["state"]["status"] == "running"
    (tmp_path / "go").touch()
    assert minirt.output("wait", "one") == "3"
    minirt.output("rm", "one")


def test_without_its_shim_a_container_goes_on_and_ends_unseen(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "sleep", "1000")
    init = pids_of(minirt, "one")[0]
    os.kill(shim_of(init), signal.SIGKILL)
    assert minirt.output("ps", "-q")
    done = minirt("exec", "one", "true")
    assert (done.returncode, "it has ended" in done.stderr) == (125, True)
    minirt.output("kill", "one")
    assert minirt.output("wait", "one") == "255"
    assert inspected(minirt, "one")["state"]["reason"] == "Unknown"
    minirt.output("rm", "one")
    assert minirt.output("system", "prune") == "nothing to remove"


def test_without_its_shim_a_container_can_be_stopped_and_removed(minirt: Minirt, busybox: str) -> None:
    for name in ("stopped", "removed"):
        minirt.output("run", "-d", "--name", name, *ALONE, busybox, "sleep", "1000")
        os.kill(shim_of(pids_of(minirt, name)[0]), signal.SIGKILL)
    minirt.output("stop", "-t", "0.2", "stopped")
    assert minirt.output("wait", "stopped") == "255"
    minirt.output("rm", "stopped")
    assert minirt("rm", "removed").returncode == 1
    minirt.output("rm", "-f", "removed")


def test_a_client_says_so_when_the_shim_is_killed(minirt: Minirt, busybox: str) -> None:
    with started(minirt, "run", "--name", "one", *ALONE, busybox, "sh", "-c", "echo ready; exec sleep 1000") as client:
        await_line(client)
        os.kill(shim_of(pids_of(minirt, "one")[0]), signal.SIGKILL)
        assert client.wait(20) == 125
        assert client.stderr
        assert "it has ended" in client.stderr.read()
    minirt.output("rm", "-f", "one")


def test_rm_refuses_what_runs_and_removes_it_with_force(minirt: Minirt, busybox: str) -> None:
    before = contents(minirt)
    minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "sleep", "1000")
    done = minirt("rm", "nobody", "one")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot remove one: it is running (stop it first, or use --force)" in done.stderr
    assert minirt.output("rm", "-f", "one") == "one"
    assert contents(minirt) == before


def test_a_name_is_free_again_after_rm(minirt: Minirt, busybox: str) -> None:
    words = ["run", "--name", "one", *ALONE, busybox]
    first = minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "sh", "-c", "echo first")
    assert minirt.output("wait", "one") == "0"
    done = minirt(*words, "true")
    assert done.returncode == 125
    assert f"cannot use the name 'one': container {first[:12]} has it (remove it first (minirt rm one)" in done.stderr
    minirt.output("rm", first[:8])
    assert minirt.output(*words, "echo", "second") == "second"
    minirt.output("rm", "one")


def test_ps_shows_who_runs_and_with_a_who_ended(minirt: Minirt, busybox: str) -> None:
    minirt("run", "--name", "ended", *ALONE, busybox, "sh", "-c", "exit 3")
    key = minirt.output("run", "-d", "--name", "runs", *ALONE, busybox, "sleep", "1000")
    head, row = minirt.output("ps").splitlines()
    assert head.split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAME"]
    assert row.startswith(f"{key[:12]}   {busybox}")
    assert '"sleep 1000"' in row
    assert " Up " in row
    assert row.endswith("runs")
    everything = minirt.output("ps", "-a")
    assert "Exited (3)" in everything
    assert "runs" in everything
    minirt.output("rm", "-f", "ended", "runs")
