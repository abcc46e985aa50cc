"""The container's cgroup: where it is, that it goes; pause and resume; update and events where limits can be set.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config-linux.md#control-groups
"""

import json
import os
from pathlib import Path

import pytest

from tests import leaks
from tests.contract.oci.container import Container
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer]


def cgroups_of(pid: int) -> set[str]:
    """Return the process's cgroup in every hierarchy that this machine has."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {line.split(":", 2)[2] for line in lines}


def directories(container: Container) -> list[Path]:
    """Return where the container's cgroup is, in all hierarchies."""
    path = container.linux["cgroupsPath"].lstrip("/")
    return [top / path for top in leaks.cgroup_mounts() if (top / path).is_dir()]


def test_the_process_is_in_it(created: Container) -> None:
    assert created.linux["cgroupsPath"] in cgroups_of(created.pid)


def test_it_is_in_it_when_it_is_created_and_stays(created: Container) -> None:
    before = cgroups_of(created.pid)
    created.start()
    assert cgroups_of(created.pid) == before


def test_its_children_are_in_it_too(container: Container) -> None:
    container.script("sleep 1000 & echo; wait").create().start()
    await_true(lambda: container.output.read_text() == "\n", "the child")
    (child,) = container.proc(f"task/{container.pid}/children").read_text().split()
    assert cgroups_of(int(child)) == cgroups_of(container.pid)


def test_it_is_gone_after_delete(stopped: Container) -> None:
    assert stopped("delete").returncode == 0
    assert not directories(stopped)


def test_it_is_gone_after_run(container: Container) -> None:
    container.args("true").run()
    assert not directories(container)


def test_it_is_gone_after_a_create_that_failed(container: Container) -> None:
    container.mount("/mnt", "bind", "/no/such/source", "bind")
    assert container.try_create().returncode != 0
    assert not directories(container)


def test_one_that_is_deep(container: Container) -> None:
    container.linux["cgroupsPath"] = f"/{os.environ['MINIRT_CGROUP']}/a/b/c"
    container.create()
    assert container.linux["cgroupsPath"] in cgroups_of(container.pid)
    container.leave_nothing()
    for top in leaks.cgroup_tops():
        leaks.remove_cgroups(top)


def test_where_none_is_named_there_is_one_all_the_same(container: Container) -> None:
    del container.linux["cgroupsPath"]
    assert any("life" in path for path in cgroups_of(container.create().pid))


def test_the_host_is_not_seen_from_a_cgroup_namespace(container: Container) -> None:
    container.linux["namespaces"].append({"type": "cgroup"})
    said = container.says("cut -d: -f 3 /proc/self/cgroup | sort -u")
    assert os.environ["MINIRT_CGROUP"] not in said


def test_pause_and_resume(running: Container) -> None:
    done = running("pause")
    assert done.returncode == 0, done.stderr
    assert running.status() == "paused"
    assert running("resume").returncode == 0
    assert running.status() == "running"


def test_a_paused_program_does_nothing(container: Container) -> None:
    container.script("while :; do echo; sleep 0.01; done").create().start()
    await_true(lambda: container.output.stat().st_size > 3, "the program's output")
    assert container("pause").returncode == 0
    before = container.output.stat().st_size
    for _ in range(3):
        assert container.status() == "paused"
        assert container.output.stat().st_size == before
    assert container("resume").returncode == 0
    await_true(lambda: container.output.stat().st_size > before, "more of its output")


def test_exec_in_a_paused_container_is_an_error(running: Container) -> None:
    assert running("pause").returncode == 0
    done = running.exec("true")
    assert done.returncode != 0
    assert "paused" in done.stderr


def test_delete_by_force_ends_a_paused_container(running: Container) -> None:
    pid = running.pid
    assert running("pause").returncode == 0
    assert running.runtime("delete", "--force", running.name).returncode == 0
    assert not running.exists
    await_true(lambda: not Path(f"/proc/{pid}").exists(), "the program's end")


def test_delete_of_a_paused_container_is_an_error(running: Container) -> None:
    assert running("pause").returncode == 0
    assert running("delete").returncode != 0
    assert running.status() == "paused"


@pytest.mark.parametrize("number", ["KILL", "9"])
def test_a_paused_container_can_be_killed(running: Container, number: str) -> None:
    """On cgroup v2 at once, on v1 when it is resumed."""
    assert running("pause").returncode == 0
    assert running("kill", number).returncode == 0
    running("resume")
    running.await_end()


@pytest.mark.differs("crun", "1.8 does nothing, and says nothing")
def test_resume_of_a_running_container_is_an_error(running: Container) -> None:
    assert running("resume").returncode != 0
    assert running.status() == "running"


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_stopped_container_is_neither_paused_nor_resumed(stopped: Container, verb: str) -> None:
    assert stopped(verb).returncode != 0
    assert stopped.status() == "stopped"


def test_statistics(running: Container) -> None:
    done = running.runtime("events", "--stats", running.name)
    if "unknown command" in done.stderr:
        pytest.skip("events: this runtime has none")
    assert done.returncode == 0, done.stderr
    event = json.loads(done.stdout)
    assert (event["type"], event["id"]) == ("stats", running.name)
    assert {"cpu", "memory", "pids"} <= event["data"].keys()
    assert event["data"]["cpu"]["usage"]["total"] > 0


def test_statistics_of_a_stopped_container_are_an_error(stopped: Container) -> None:
    assert stopped.runtime("events", "--stats", stopped.name).returncode != 0


def test_update_of_nobody_is_an_error(container: Container) -> None:
    assert container.runtime("update", "--pids-limit", "7", "nobody").returncode != 0


def test_update_with_resources_that_are_no_json_is_an_error(running: Container, tmp_path: Path) -> None:
    (tmp_path / "resources").write_text("{")
    assert running.runtime("update", "--resources", tmp_path / "resources", running.name).returncode != 0
    assert running.status() == "running"
