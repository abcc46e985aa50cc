"""A served pod, once nobody asks for anything more: its shim and its pause let go of memory."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirt.crimessages import api_pb2 as cri
from tests.isolation import children_of
from tests.peers.cri import Pods, Runtime
from tests.peers.daemon import await_true
from tests.peers.serve import Server, own_server

pytestmark = pytest.mark.root
WORTHWHILE_KB = 400
PAUSE_KB = 1500


@pytest.fixture
def server(tmp_path: Path, busybox_store: Path) -> Iterator[Server]:
    with own_server(tmp_path, busybox_store) as server:
        yield server


def shim_of(server: Server) -> int:
    """Return the pid of the only shim there is."""
    (record,) = (server.minirt.state / "sandboxes").glob("*/sandbox.json")
    return int(json.loads(record.read_text())["shim"][0])


def copied_kb(pid: int) -> int:
    """Return how much of a process's memory has no file behind it: pages that were copied, or are its zygote's."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def has_rehearsed(server: int) -> bool:
    """Say whether the zygote of a server has a file behind its memory: before, its shims have none either."""
    return any("/memfd:" in Path(f"/proc/{child}/maps").read_text() for child in children_of(server))


def test_a_shim_rests_and_works_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    await_true(lambda: has_rehearsed(server.daemon.process.pid), "a rehearsal")
    pods = Pods(Runtime("minirt", server.socket), tmp_path / "logs")
    container = pods.container(pods.run())
    shim = shim_of(server)
    busy = copied_kb(shim)
    await_true(lambda: copied_kb(shim) < busy - WORTHWHILE_KB, "a shim that rests")
    assert pods.exec(container, "echo", "again").stdout == b"again\n"
    pods.runtime.StopContainer(cri.StopContainerRequest(container_id=container, timeout=0))
    assert pods.status(container).exit_code == 128 + signal.SIGKILL
    pods.close()
    pods.runtime.close()


def test_pause_keeps_nothing_of_the_servers_memory(server: Server, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    await_true(lambda: has_rehearsed(server.daemon.process.pid), "a rehearsal")
    pods = Pods(Runtime("minirt", server.socket), tmp_path / "logs")
    options = cri.NamespaceOption(pid=cri.NamespaceMode.POD)
    linux = cri.LinuxPodSandboxConfig(security_context=cri.LinuxSandboxSecurityContext(namespace_options=options))
    pods.run(linux=linux)
    (pause,) = children_of(shim_of(server))
    assert Path(f"/proc/{pause}/comm").read_text() == "pause\n"
    await_true(lambda: "/memfd:" not in Path(f"/proc/{pause}/maps").read_text(), "pause to let go")
    assert copied_kb(pause) < PAUSE_KB
    pods.close()
    pods.runtime.close()
