"""The life of a container as the OCI runtime specification has it, told to each runtime by the same words.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/runtime.md, "Lifecycle" and "Operations".
"""

import os
from pathlib import Path

import pytest

from tests.contract.oci.container import WAIT, Container, fields
from tests.peers.daemon import await_true
from tests.peers.oci import Runtime

pytestmark = [pytest.mark.root, pytest.mark.peer]


def test_create_start_kill_delete(created: Container) -> None:
    assert created.status() == "created"
    assert created("start").returncode == 0
    assert created.status() == "running"
    assert created("kill", "KILL").returncode == 0
    created.await_end()
    assert created("delete").returncode == 0
    assert not created.exists


def test_the_program_is_started_by_start_and_not_before(created: Container) -> None:
    assert created.proc("comm").read_text().strip() != "sleep"
    created.start()
    await_true(lambda: created.proc("comm").read_text().strip() == "sleep", "the program's exec")


def test_a_program_that_ends_by_itself_is_stopped(container: Container) -> None:
    container.args("true").create().start().await_end()


def test_what_the_program_says_goes_where_create_was_told(container: Container) -> None:
    container.script("echo hello").create().start().await_end()
    assert container.output.read_text() == "hello\n"


@pytest.mark.parametrize("number", ["15", "TERM", "SIGTERM"])
def test_a_signal_reaches_the_program(container: Container, number: str) -> None:
    container.script(WAIT).create().start()
    container.await_trap()
    assert container("kill", number).returncode == 0
    container.await_end()


def test_kill_says_term_where_nothing_is_said(container: Container) -> None:
    container.script(WAIT).create().start()
    container.await_trap()
    assert container("kill").returncode == 0
    container.await_end()


@pytest.mark.differs("crun", "1.8 takes a word that it does not know for signal 0")
def test_a_signal_that_is_none_is_an_error(running: Container) -> None:
    assert running("kill", "NONSENSE").returncode != 0
    assert running.status() == "running"


def test_kill_ends_what_is_created_only(created: Container) -> None:
    """The specification refuses a signal only to one that is "neither `created` nor `running`"."""
    assert created("kill", "KILL").returncode == 0
    created.await_end()


def test_kill_of_a_stopped_container_says_so(stopped: Container) -> None:
    """By these words callers tell that there is nothing more to do."""
    done = stopped("kill", "KILL")
    assert done.returncode != 0
    known = ("process already finished", "container not running", "no such process", "is not running")
    assert any(words in done.stderr.lower() for words in known), done.stderr


def test_start_twice_is_an_error(running: Container) -> None:
    assert running("start").returncode != 0
    assert running.status() == "running"


def test_start_of_a_stopped_container_is_an_error(stopped: Container) -> None:
    assert stopped("start").returncode != 0
    assert stopped.status() == "stopped"


def test_delete_of_a_running_container_is_an_error(running: Container) -> None:
    """The specification: "Attempting to `delete` a container that is not `stopped` MUST have no effect"."""
    assert running("delete").returncode != 0
    assert running.status() == "running"


def test_delete_by_force_ends_a_running_container(running: Container) -> None:
    pid = running.pid
    assert running.runtime("delete", "--force", running.name).returncode == 0
    assert not running.exists
    await_true(lambda: not Path(f"/proc/{pid}").exists(), "the program's end")


def test_delete_by_force_ends_a_created_container(created: Container) -> None:
    pid = created.pid
    assert created.runtime("delete", "--force", created.name).returncode == 0
    assert not created.exists
    await_true(lambda: not Path(f"/proc/{pid}").exists(), "the init's end")


def test_delete_by_force_of_a_stopped_container(stopped: Container) -> None:
    assert stopped.runtime("delete", "--force", stopped.name).returncode == 0
    assert not stopped.exists


def test_delete_by_force_of_nobody_is_no_error(runtime: Runtime) -> None:
    """containerd's shim and podman delete once more, to be sure."""
    assert runtime("delete", "--force", "nobody").returncode == 0


def test_what_was_deleted_is_gone(stopped: Container) -> None:
    assert stopped("delete").returncode == 0
    assert stopped("delete").returncode != 0


def test_an_id_is_free_again_after_delete(stopped: Container) -> None:
    assert stopped("delete").returncode == 0
    assert stopped.create().status() == "created"


def test_an_id_is_taken_once(created: Container) -> None:
    pid = created.pid
    assert created.runtime.detached("create", "--bundle", created.bundle, created.name).returncode != 0
    assert created.status() == "created"
    assert created.state()["pid"] == pid


def test_run_detached_leaves_it_running(container: Container) -> None:
    done = container.try_create("--detach", verb="run")
    assert done.returncode == 0, done.stderr
    assert container.status() == "running"
    assert container.state()["pid"] == container.pid


def test_run_deletes_at_the_end(container: Container) -> None:
    assert container.args("true").run().returncode == 0
    assert not container.exists


def test_the_init_is_given_to_the_callers_subreaper(created: Container) -> None:
    """Conmon and containerd's shim wait for it themselves; these tests' subreaper is the parent of this process."""
    assert fields(created.pid)["PPid"] == str(os.getppid())


def test_two_containers_do_not_know_of_each_other(running: Container, tmp_path: Path, root: Path) -> None:
    other = Container(running.runtime, tmp_path / "other", root, "other").create()
    try:
        assert running.stop().status() == "stopped"
        assert other.status() == "created"
    finally:
        running.runtime("delete", "--force", "other")


def test_another_state_directory_is_another_world(running: Container, tmp_path: Path) -> None:
    elsewhere = Runtime(running.runtime.program, tmp_path / "elsewhere")
    assert elsewhere("state", running.name).returncode != 0
