import os
import time
from pathlib import Path

import pytest

from minirt import paths
from minirt.linux import process
from minirt.shim import status as statuses
from minirt.shim.status import Status


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIRT_STATE", str(tmp_path))
    paths.container_dir("one").mkdir(parents=True)


def test_none_before_the_first() -> None:
    assert statuses.read("one") is None
    assert statuses.read("unknown") is None


def test_there_and_back() -> None:
    status = Status("running", pid=7, start_time=8, created_at=1, started_at=2, warnings=("w",))
    statuses.write("one", status)
    assert statuses.read("one") == status


def test_an_exit_keeps_what_was_known() -> None:
    before = time.time_ns()
    ended = Status("running", pid=7, started_at=2).exited(137, "OOMKilled", "too much")
    assert (ended.state, ended.exit_code, ended.reason, ended.message) == ("exited", 137, "OOMKilled", "too much")
    assert (ended.pid, ended.started_at) == (7, 2)
    assert before <= ended.finished_at <= time.time_ns()


def test_alive_is_this_very_process() -> None:
    me = Status("running", pid=os.getpid(), start_time=process.start_time(os.getpid()))
    assert me.is_alive()
    assert not Status("running", pid=os.getpid(), start_time=1).is_alive()
    assert not Status("created").is_alive()
    assert not Status("running", pid=1 << 22, start_time=1).is_alive()


def test_a_reader_sees_the_old_or_the_new_and_nothing_else(tmp_path: Path) -> None:
    statuses.write("one", Status("created"))
    file = paths.container_dir("one") / "status.json"
    with file.open() as old:
        statuses.write("one", Status("running"))
        assert '"created"' in old.read()
    assert '"running"' in file.read_text()
    assert os.listdir(file.parent) == ["status.json"]


def test_a_field_of_a_newer_version_is_no_matter() -> None:
    (paths.container_dir("one") / "status.json").write_text('{"state": "exited", "exit_code": 3, "later": {}}')
    assert statuses.read("one") == Status("exited", exit_code=3)
