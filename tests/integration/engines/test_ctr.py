"""containerd's own client, on runc and on minirt-oci."""

from pathlib import Path

import pytest

from tests.peers import busybox
from tests.peers.containerd import Containerd
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer]


def test_output_and_exit_code(ctr: Containerd, chosen: tuple[str, ...]) -> None:
    done = ctr("run", "--rm", *chosen, busybox.NAME, "one", "sh", "-c", "echo out; exit 7")
    assert (done.stdout, done.returncode) == ("out\n", 7), done.stderr


def test_a_life_in_the_background(ctr: Containerd, chosen: tuple[str, ...]) -> None:
    ctr.output("run", "--detach", *chosen, busybox.NAME, "one", "sleep", "1000")
    done = ctr("tasks", "exec", "--exec-id", "more", "one", "sh", "-c", "echo inside; exit 4")
    assert (done.stdout, done.returncode) == ("inside\n", 4)
    pids = [line.split()[0] for line in ctr.output("tasks", "ps", "one").splitlines()[1:]]
    assert [Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids] == ["sleep"]
    ctr.output("tasks", "pause", "one")
    assert "PAUSED" in ctr.output("tasks", "list")
    ctr.output("tasks", "resume", "one")
    ctr.output("tasks", "kill", "--signal", "SIGKILL", "one")
    await_true(lambda: "STOPPED" in ctr.output("tasks", "list"), "the end")


def test_a_command_that_is_not_there(ctr: Containerd, chosen: tuple[str, ...]) -> None:
    done = ctr("run", "--rm", *chosen, busybox.NAME, "one", "nothing-of-this-name")
    assert done.returncode != 0
    assert "executable file not found in $PATH" in done.stderr
