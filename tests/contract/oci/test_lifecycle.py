"""The life of a container as the OCI runtime specification has it, told to each runtime by the same words.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/runtime.md, "Lifecycle" and "Operations".
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import requirements
from tests.peers import oci
from tests.peers.daemon import await_true
from tests.peers.oci import Runtime

pytestmark = [pytest.mark.root, pytest.mark.peer]

RUNTIMES = {"runc": oci.runc, "crun": oci.crun, "minirt-oci": oci.minirt}
WAIT = "trap 'exit 3' TERM; while :; do sleep 0.1; done"


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Runtime:
    """One of the runtimes, with a state directory of this test's own."""
    if reason := requirements.no_program(request.param)():
        pytest.skip(reason)
    return RUNTIMES[request.param](tmp_path / "state")


@pytest.fixture
def created(runtime: Runtime, tmp_path: Path, busybox_root: Path) -> Iterator[str]:
    """The id of a container that is created, not started; deleted after the test."""
    bundle = oci.bundle(tmp_path / "bundle", busybox_root, "sh", "-c", WAIT)
    made = runtime.detached("create", "--bundle", bundle, "--pid-file", tmp_path / "pid", "life")
    assert made.returncode == 0, made.stderr
    yield "life"
    runtime("delete", "--force", "life")


def test_exit_status_of_run(runtime: Runtime, tmp_path: Path, busybox_root: Path) -> None:
    bundle = oci.bundle(tmp_path / "bundle", busybox_root, "sh", "-c", "echo out; echo err >&2; exit 7")
    done = runtime("run", "--bundle", bundle, "life")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_create_start_kill_delete(runtime: Runtime, created: str) -> None:
    assert runtime.status(created) == "created"
    assert runtime("start", created).returncode == 0
    assert runtime.status(created) == "running"
    assert runtime("kill", created, "KILL").returncode == 0
    await_true(lambda: runtime.status(created) == "stopped", "the container's end")
    assert runtime("delete", created).returncode == 0
    assert runtime("state", created).returncode != 0


def test_state_says_what_the_specification_asks(runtime: Runtime, created: str, tmp_path: Path) -> None:
    state = json.loads(runtime("state", created).stdout)
    pid = int((tmp_path / "pid").read_text())
    assert (state["id"], state["pid"], state["bundle"]) == (created, pid, str(tmp_path / "bundle"))
    assert state["ociVersion"].startswith("1.")
    os.kill(pid, 0)


def test_the_program_is_started_by_start_and_not_before(runtime: Runtime, created: str, tmp_path: Path) -> None:
    pid = (tmp_path / "pid").read_text()
    assert Path(f"/proc/{pid}/comm").read_text().strip() != "sh"
    assert runtime("start", created).returncode == 0
    await_true(lambda: Path(f"/proc/{pid}/comm").read_text().strip() == "sh", "the program's exec")


def test_a_signal_reaches_the_program(runtime: Runtime, created: str, tmp_path: Path) -> None:
    assert runtime("start", created).returncode == 0
    pid = (tmp_path / "pid").read_text()
    await_true(lambda: _catches(pid, signal.SIGTERM), "the program's trap")
    assert runtime("kill", created, "TERM").returncode == 0
    await_true(lambda: runtime.status(created) == "stopped", "the program's exit")


@pytest.mark.parametrize("words", [("start", "nobody"), ("kill", "nobody", "KILL"), ("state", "nobody")])
def test_a_container_that_is_not_there_is_an_error(runtime: Runtime, words: tuple[str, ...]) -> None:
    done = runtime(*words)
    assert done.returncode != 0
    assert "nobody" in done.stderr or "does not exist" in done.stderr


def test_start_twice_is_an_error(runtime: Runtime, created: str) -> None:
    assert runtime("start", created).returncode == 0
    assert runtime("start", created).returncode != 0


def test_an_id_is_taken_once(runtime: Runtime, created: str, tmp_path: Path) -> None:
    assert runtime.detached("create", "--bundle", tmp_path / "bundle", created).returncode != 0
    assert runtime.status(created) == "created"


def test_create_without_a_bundle_leaves_nothing(runtime: Runtime, tmp_path: Path) -> None:
    assert runtime.detached("create", "--bundle", tmp_path / "none", "life").returncode != 0
    assert runtime("state", "life").returncode != 0


def _catches(pid: str, number: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)
