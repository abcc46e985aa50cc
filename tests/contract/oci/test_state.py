"""What ``state``, ``list``, ``ps`` and ``--pid-file`` say.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/runtime.md#state
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.contract.oci.container import Container
from tests.peers.daemon import await_true
from tests.peers.oci import Runtime

pytestmark = [pytest.mark.root, pytest.mark.peer]


def test_it_says_what_the_specification_asks(created: Container) -> None:
    state = created.state()
    assert (state["id"], state["pid"], state["bundle"]) == (created.name, created.pid, str(created.bundle))
    assert state["ociVersion"].startswith("1.")
    os.kill(state["pid"], 0)


def test_the_pid_stays_the_same(created: Container) -> None:
    before = created.state()["pid"]
    assert created.start().state()["pid"] == before == created.pid


def test_a_stopped_container_has_no_pid(stopped: Container) -> None:
    assert stopped.state().get("pid", 0) == 0


def test_annotations_are_passed_on(container: Container) -> None:
    notes = {"org.example.colour": "blue", "org.example.empty": "", "with space": "ü"}
    container.config["annotations"] = notes
    assert container.create().state()["annotations"] == notes


def test_no_annotations(created: Container) -> None:
    assert not created.state().get("annotations")


def test_a_relative_bundle_is_made_absolute(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """The specification: "bundle (string, REQUIRED) is the absolute path to the container's bundle directory"."""
    monkeypatch.chdir(container.bundle.parent)
    absolute, container.bundle = container.bundle, container.bundle.relative_to(container.bundle.parent)
    assert container.create().state()["bundle"] == str(absolute)


def test_the_bundle_is_the_current_directory_if_none_is_named(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    container.write()
    monkeypatch.chdir(container.bundle)
    done = container.runtime.detached("create", container.name)
    assert done.returncode == 0, done.stderr
    assert container.state()["bundle"] == str(container.bundle)


def test_when_it_was_created(created: Container) -> None:
    then = datetime.fromisoformat(created.state()["created"][:19]).replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - then).total_seconds()) < 60


def test_the_root_file_system_is_named(created: Container, root: Path) -> None:
    assert created.state()["rootfs"] == str(root)


def test_the_pid_file_is_replaced(container: Container) -> None:
    container.pid_file.write_text("1234567890")
    assert container.create().pid == container.state()["pid"]


def test_the_pid_file_holds_a_number_and_nothing_else(created: Container) -> None:
    assert created.pid_file.read_text().strip().isdigit()


def test_run_writes_a_pid_file(container: Container) -> None:
    assert container.args("true").run("--pid-file", container.pid_file).returncode == 0
    assert container.pid > 1


def test_list_has_a_line_for_each(running: Container) -> None:
    title, line = running.runtime("list").stdout.splitlines()
    assert title.split()[:2] == ["ID", "PID"] or title.split()[:2] == ["NAME", "PID"]
    assert line.split()[:3] == [running.name, str(running.pid), "running"]


def test_list_as_json(running: Container) -> None:
    (one,) = json.loads(running.runtime("list", "--format", "json").stdout)
    assert (one["id"], one["pid"], one["status"]) == (running.name, running.pid, "running")
    assert one["bundle"] == str(running.bundle)


def test_list_of_names_only(running: Container) -> None:
    assert running.runtime("list", "--quiet").stdout.split() == [running.name]


def test_list_of_nobody(runtime: Runtime) -> None:
    done = runtime("list", "--quiet")
    assert (done.returncode, done.stdout) == (0, "")


def test_list_of_nobody_as_json(runtime: Runtime) -> None:
    done = runtime("list", "--format", "json")
    assert done.returncode == 0
    assert not json.loads(done.stdout)


def test_a_stopped_container_is_listed(stopped: Container) -> None:
    (one,) = json.loads(stopped.runtime("list", "--format", "json").stdout)
    assert (one["id"], one["pid"], one["status"]) == (stopped.name, 0, "stopped")


def test_ps_as_json_is_the_hosts_pids(running: Container) -> None:
    done = running.runtime("ps", "--format", "json", running.name)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [running.pid]


def test_ps_finds_the_children(container: Container) -> None:
    container.script("sleep 1000 & echo; wait").create().start()
    await_true(lambda: container.output.read_text() == "\n", "the child")
    pids = json.loads(container.runtime("ps", "--format", "json", container.name).stdout)
    assert container.pid in pids
    assert len(pids) == 2


def test_ps_as_a_table(running: Container) -> None:
    done = running.runtime("ps", running.name)
    assert done.returncode == 0, done.stderr
    assert str(running.pid) in done.stdout


@pytest.mark.parametrize("name", ["with-dash", "under_score", "dots.in.it", "plus+plus", "UPPER", "0", "a" * 64])
def test_what_an_id_may_be(container: Container, name: str) -> None:
    container.name = name
    container.linux["cgroupsPath"] = container.linux["cgroupsPath"].replace("life", "odd")
    assert container.create().state()["id"] == name


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "../up"])
def test_what_an_id_may_not_be(container: Container, name: str) -> None:
    container.name = name
    done = container.try_create()
    assert done.returncode != 0
    assert done.stderr


def test_version(runtime: Runtime) -> None:
    """Podman and docker show the first line: "NAME version NUMBER"."""
    done = runtime("--version")
    assert done.returncode == 0
    name, word, number = done.stdout.splitlines()[0].split()
    assert (name, word) == (runtime.name, "version")
    assert number[0].isdigit()
    assert "spec: 1." in done.stdout


def test_help(runtime: Runtime) -> None:
    done = runtime("--help")
    assert done.returncode == 0
    for verb in ("create", "start", "state", "kill", "delete", "run", "exec"):
        assert verb in done.stdout
