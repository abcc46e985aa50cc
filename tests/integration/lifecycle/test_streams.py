"""stdin, stdout and stderr: complete, in order, and at the pace of whoever reads."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.command import COMMAND, Minirt
from tests.integration.lifecycle.watching import (
    ALONE,
    await_line,
    await_log,
    is_writing,
    pids_of,
    rest_of,
    shim_of,
    started,
)
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

LINES = 100_000
LINE = "%099d"
COUNTED = f"awk 'BEGIN {{ for (i = 0; i < {LINES}; i++) printf \"{LINE}\\n\", i }}'"
"""Ten million bytes in numbered lines."""
TEN_MB = LINES * 100


def is_counted(text: str | bytes) -> bool:
    """Say whether ``text`` is what COUNTED writes."""
    lines = text.splitlines()
    return len(lines) == LINES and all(int(line) == number for number, line in enumerate(lines))


def test_ten_megabytes_on_both_streams_arrive_complete_and_in_order(minirt: Minirt, busybox: str) -> None:
    done = minirt("run", "--name", "one", *ALONE, busybox, "sh", "-c", f"{COUNTED} & {COUNTED} >&2; wait")
    assert done.returncode == 0
    assert is_counted(done.stdout)
    assert is_counted(done.stderr)
    again = minirt("logs", "one")
    assert is_counted(again.stdout)
    assert is_counted(again.stderr)
    minirt.output("rm", "one")


def test_exec_loses_nothing_either(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "sleep", "1000")
    done = minirt("exec", "one", "sh", "-c", f"{COUNTED} & {COUNTED} >&2; wait")
    assert done.returncode == 0
    assert is_counted(done.stdout)
    assert is_counted(done.stderr)
    minirt.output("rm", "-f", "one")


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_bytes_go_in_and_come_out_as_they_were(minirt: Minirt, busybox: str, tmp_path: Path, verb: str) -> None:
    """More than any pipe holds: who writes must read at the same time, or all stand still."""
    data = bytes(range(256)) * 8192
    if verb == "exec":
        minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "sleep", "1000")
    words = ["run", "--rm", "-i", *ALONE, busybox] if verb == "run" else ["exec", "-i", "one"]
    done = subprocess.run(
        [COMMAND, *words, "cat"], env=minirt.env, input=data, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout == data, done.stderr) == (0, True, b"")
    if verb == "exec":
        minirt.output("rm", "-f", "one")


def test_stdin_is_passed_only_when_asked_for_and_ends(minirt: Minirt, busybox: str) -> None:
    assert minirt("run", "--rm", *ALONE, busybox, "cat", stdin="given").stdout == ""
    assert minirt("run", "--rm", "-i", *ALONE, busybox, "wc", "-c", stdin="given").stdout.strip() == "5"
    assert minirt("run", "--rm", "-i", *ALONE, busybox, "cat", stdin="").stdout == ""


def test_who_does_not_read_its_stdin_ends_all_the_same(minirt: Minirt, busybox: str) -> None:
    done = minirt("run", "--rm", "-i", *ALONE, busybox, "sh", "-c", "exec <&-; echo done", stdin="x" * 1_000_000)
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_a_reader_that_stops_holds_the_container_back_and_loses_nothing(minirt: Minirt, busybox: str) -> None:
    words = ["run", "--name", "one", *ALONE, busybox, "sh", "-c", f"echo ready; exec {COUNTED}"]
    with started(minirt, *words) as client:
        await_line(client)
        init = pids_of(minirt, "one")[0]
        await_true(lambda: is_writing(init), "the container waits for its reader")
        assert len(minirt("logs", "one").stdout) < TEN_MB / 10
        rest = rest_of(client)
    assert client.returncode == 0
    assert is_counted(rest)
    assert is_counted(minirt("logs", "one").stdout.removeprefix("ready\n"))
    minirt.output("rm", "one")


def test_a_client_that_dies_while_it_is_behind_does_not_hold_the_container(minirt: Minirt, busybox: str) -> None:
    words = ["run", "--name", "one", *ALONE, busybox, "sh", "-c", f"echo ready; exec {COUNTED}"]
    with started(minirt, *words) as client:
        await_line(client)
        init = pids_of(minirt, "one")[0]
        shim = shim_of(init)
        await_true(lambda: is_writing(init), "the container waits for its reader")
        client.kill()
    assert minirt.output("wait", "one") == "0"
    assert is_counted(minirt("logs", "one").stdout.removeprefix("ready\n"))
    await_true(lambda: not Path(f"/proc/{shim}").exists(), "what must follow the end is done")
    minirt.output("rm", "one")


def test_sigpipe_in_a_container_is_as_everywhere(minirt: Minirt, busybox: str) -> None:
    script = 'yes | head -n 1; (yes; echo "yes $?" >&2) | head -n 1'
    done = minirt("run", "--rm", *ALONE, busybox, "sh", "-c", script)
    assert done.returncode == 0
    assert done.stdout.split() == ["y", "y"]
    assert "yes 141" in done.stderr
    signals = minirt.output("run", "--rm", *ALONE, busybox, "grep", "-E", "Sig(Ign|Blk)", "/proc/self/status")
    assert signals.split() == ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16]


def test_a_client_whose_output_nobody_reads_ends_and_the_container_goes_on(minirt: Minirt, busybox: str) -> None:
    with started(minirt, "run", "--name", "one", *ALONE, busybox, "sh", "-c", "while :; do echo y; done") as client:
        assert client.stdout
        assert client.stdout.readline() == "y\n"
        client.stdout.close()
        assert client.wait(20) == 141
    assert minirt.output("ps", "-q")
    minirt.output("rm", "-f", "one")


def test_a_process_has_three_descriptors_and_no_more(minirt: Minirt, busybox: str) -> None:
    count = ["sh", "-c", "ls /proc/$$/fd; true"]
    assert minirt.output("run", "--rm", *ALONE, busybox, *count).split() == ["0", "1", "2"]
    assert minirt.output("run", "--rm", "-i", *ALONE, busybox, *count, stdin="x").split() == ["0", "1", "2"]
    minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "sleep", "1000")
    assert minirt.output("exec", "one", *count).split() == ["0", "1", "2"]
    assert minirt.output("exec", "-i", "one", *count, stdin="x").split() == ["0", "1", "2"]
    minirt.output("rm", "-f", "one")


def test_exec_ends_with_its_command_even_if_a_child_of_it_goes_on(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "sleep", "1000")
    assert minirt("exec", "one", "sh", "-c", "sleep 1000 & echo done", timeout_s=20).stdout == "done\n"
    minirt.output("rm", "-f", "one")


def test_exec_leaves_nothing_open_in_the_shim(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "sleep", "1000")
    shim = shim_of(pids_of(minirt, "one")[0])
    before = sorted(Path(f"/proc/{shim}/fd").iterdir())
    for words in (["true"], ["/no/such"], ["sh", "-c", "exit 3"]):
        minirt("exec", "one", *words)
    await_true(lambda: sorted(Path(f"/proc/{shim}/fd").iterdir()) == before, "the shim's descriptors as before")
    minirt.output("rm", "-f", "one")


def test_a_detached_container_keeps_its_stdin_open_when_asked_to(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "-i", "--name", "open", *ALONE, busybox, "sh", "-c", "echo ready; cat; echo ended")
    minirt.output("run", "-d", "--name", "null", *ALONE, busybox, "sh", "-c", "cat; echo ended")
    assert minirt.output("wait", "null") == "0"
    await_log(minirt, "open")
    assert minirt.output("ps", "-q", "--no-trunc").splitlines() == [minirt_id(minirt, "open")]
    minirt.output("rm", "-f", "open", "null")


def minirt_id(minirt: Minirt, name: str) -> str:
    """Return a container's id."""
    found = re.search(r'"id": "([0-9a-f]{64})"', minirt.output("inspect", name))
    assert found
    return found[1]
