"""Logs: the CRI's format on disk, and what ``minirt logs`` makes of it."""

import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.command import COMMAND, Minirt
from tests.integration.lifecycle.watching import ALONE, await_line, await_log, inspected, rest_of, started
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

RECORD = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) (stdout|stderr) ([PF]) (.*)")
MAX_LINE = 16 * 1024


def records(minirt: Minirt, name: str) -> list[tuple[str, str, int]]:
    """Return (stream, P or F, length) of each record of a container's log file."""
    lines = Path(inspected(minirt, name)["log_path"]).read_text().splitlines()
    found = [RECORD.fullmatch(line) for line in lines]
    assert all(found), lines
    return [(match[2], match[3], len(match[4])) for match in found if match]


def test_long_lines_are_cut_into_records_and_put_together_again(minirt: Minirt, busybox: str) -> None:
    """One byte more than a record, exactly one record, an empty line, and an end without a newline."""
    long, exact = "x" * (2 * MAX_LINE + 1), "y" * MAX_LINE
    script = "cat; printf 'no end' >&2"
    minirt.output("run", "-i", "--name", "one", *ALONE, busybox, "sh", "-c", script, stdin=f"{long}\n{exact}\n\nend")
    assert sorted(records(minirt, "one")) == sorted(
        [
            *[("stdout", "P", MAX_LINE), ("stdout", "P", MAX_LINE), ("stdout", "F", 1)],
            *[("stdout", "F", MAX_LINE), ("stdout", "F", 0), ("stdout", "F", 3), ("stderr", "F", 6)],
        ]
    )
    done = minirt("logs", "one")
    assert (done.stdout, done.stderr) == (f"{long}\n{exact}\n\nend\n", "no end\n")
    minirt.output("rm", "one")


def test_every_byte_can_be_had_again(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "printf", r"\377\000\303\244\n\303\n")
    assert minirt.output("wait", "one") == "0"
    done = subprocess.run([COMMAND, "logs", "one"], env=minirt.env, capture_output=True, check=True)
    assert done.stdout == b"\xff\x00\xc3\xa4\n\xc3\n"
    minirt.output("rm", "one")


def test_tail_and_timestamps(minirt: Minirt, busybox: str) -> None:
    before = datetime.now(UTC)
    minirt.output("run", "--name", "one", *ALONE, busybox, "seq", "5")
    assert minirt.output("logs", "--tail", "2", "one").split() == ["4", "5"]
    assert minirt.output("logs", "-n", "0", "one") == ""
    assert minirt.output("logs", "-n", "99", "one").split() == ["1", "2", "3", "4", "5"]
    at, text = minirt.output("logs", "-t", "-n", "1", "one").split()
    assert text == "5"
    assert before - timedelta(seconds=1) < datetime.fromisoformat(at) < datetime.now(UTC)
    minirt.output("rm", "one")


def test_following_shows_what_was_and_what_comes_until_the_end(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    script = "echo one; echo two; echo ready; until [ -e /share/go ]; do sleep 0.02; done; echo three; printf four"
    minirt.output("run", "-d", "--name", "one", *ALONE, "-v", f"{tmp_path}:/share", busybox, "sh", "-c", script)
    await_log(minirt, "one")
    with started(minirt, "logs", "-f", "--tail", "2", "one") as following:
        await_line(following, "two")
        (tmp_path / "go").touch()
        assert rest_of(following).split() == ["ready", "three", "four"]
        assert following.returncode == 0
    assert minirt.output("logs", "-f", "one").split() == ["one", "two", "ready", "three", "four"]
    minirt.output("rm", "one")


def test_following_ends_when_the_container_is_removed(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    script = "echo ready; until [ -e /share/go ]; do sleep 0.02; done; echo last"
    share = ("-v", f"{tmp_path}:/share")
    minirt.output("run", "-d", "--rm", "--name", "one", *ALONE, *share, busybox, "sh", "-c", script)
    with started(minirt, "logs", "-f", "one") as following:
        await_line(following)
        (tmp_path / "go").touch()
        assert rest_of(following).split() == ["last"]
    await_true(lambda: not minirt.output("ps", "-aq"), "the container's removal")


def test_what_comes_after_the_clients_death_is_logged(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    script = "echo ready; until [ -e /share/go ]; do sleep 0.02; done; echo after; echo error >&2; exit 3"
    words = ["run", "--name", "one", *ALONE, "-v", f"{tmp_path}:/share", busybox, "sh", "-c", script]
    with started(minirt, *words) as client:
        await_line(client)
        client.kill()
    (tmp_path / "go").touch()
    assert minirt.output("wait", "one") == "3"
    done = minirt("logs", "one")
    assert (done.stdout.split(), done.stderr) == (["ready", "after"], "error\n")
    minirt.output("rm", "one")


def test_logs_of_nobody(minirt: Minirt) -> None:
    done = minirt("logs", "nobody")
    assert (done.returncode, "cannot find container 'nobody'" in done.stderr) == (125, True)
