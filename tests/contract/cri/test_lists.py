"""Lists show what has happened before they were asked for, whoever did it: a call, the container itself, or others."""

import json
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirt.crimessages import api_pb2 as cri
from minirt.linux import fds, process
from tests.peers.cri import Pods, Runtime
from tests.peers.daemon import await_true
from tests.peers.serve import Server

pytestmark = [pytest.mark.root, pytest.mark.peer]
STATE = cri.ContainerState
RUNNING = {"state": cri.ContainerStateValue(state=STATE.CONTAINER_RUNNING)}
READY = {"state": cri.PodSandboxStateValue(state=cri.PodSandboxState.SANDBOX_READY)}


def test_each_call_is_in_the_list_that_follows(pods: Pods) -> None:
    assert pods.sandboxes() == pods.sandboxes() == []
    sandbox = pods.run()
    assert pods.sandboxes() == pods.sandboxes(**READY) == [sandbox]
    assert pods.containers(pod_sandbox_id=sandbox) == []
    container = pods.create(sandbox)
    assert pods.containers(pod_sandbox_id=sandbox) == pods.containers() == [container]
    assert pods.containers(**RUNNING) == []
    pods.start(container)
    assert pods.containers(**RUNNING) == pods.containers(**RUNNING) == [container]
    pods.runtime.StopContainer(cri.StopContainerRequest(container_id=container, timeout=0))
    assert pods.containers(**RUNNING) == []
    pods.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container))
    assert pods.containers() == pods.containers(pod_sandbox_id=sandbox) == []
    pods.stop(sandbox)
    assert pods.sandboxes(**READY) == []
    assert pods.sandboxes() == [sandbox]
    pods.remove(sandbox)
    assert pods.sandboxes() == []


@pytest.fixture
def own(minirt_runtime: Runtime, tmp_path: Path) -> Iterator[Pods]:
    """What makes pods in minirt, to be changed behind the server's back."""
    pods = Pods(minirt_runtime, tmp_path)
    yield pods
    pods.close()


def shim_of(server: Server, sandbox: str) -> int:
    record = server.minirt.state / "sandboxes" / sandbox / "sandbox.json"
    return int(json.loads(record.read_text())["shim"][0])


def init_of(pods: Pods, container: str) -> int:
    request = cri.ContainerStatusRequest(container_id=container, verbose=True)
    return int(json.loads(pods.runtime.ContainerStatus(request).info["info"])["state"]["pid"])


def kill(pid: int) -> None:
    """Kill a process that is nobody's child here, and wait until it has ended."""
    with fds.closing(process.pidfd_open(pid)) as pidfd:
        process.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(20_000)


def test_a_container_that_has_ended_by_itself_is_in_no_list_of_running_ones(own: Pods) -> None:
    container = own.container(own.run())
    assert own.containers(**RUNNING) == own.containers(**RUNNING) == [container]
    kill(init_of(own, container))
    assert own.containers(**RUNNING) == []
    assert own.containers() == [container]


def test_a_pod_whose_shim_is_killed_is_not_ready(own: Pods, minirt_server: Server) -> None:
    sandbox = own.run()
    container = own.container(sandbox)
    pid = init_of(own, container)
    assert own.sandboxes(**READY) == own.sandboxes(**READY) == [sandbox]
    kill(shim_of(minirt_server, sandbox))
    assert own.sandboxes(**READY) == []
    assert own.containers(**RUNNING) == own.containers(**RUNNING) == [container]
    kill(pid)
    assert own.containers(**RUNNING) == []


def test_what_another_process_removes_is_gone(own: Pods, minirt_server: Server) -> None:
    configs = [own.config() for _ in range(2)]
    for config in configs:
        config.labels["io.kubernetes.pod.uid"] = config.metadata.uid
    sandboxes = [own.run(config) for config in configs]
    made = [own.container(sandbox) for sandbox in sandboxes]
    assert (own.sandboxes(), own.containers()) == (own.sandboxes(), own.containers()) == (sandboxes, made)
    minirt_server.minirt.output("pod", "rm", "-f", sandboxes[0])
    assert (own.sandboxes(), own.containers()) == (sandboxes[1:], made[1:])


def test_a_pod_that_the_command_line_removes(own: Pods, minirt_server: Server) -> None:
    """With what runs in it; its logs are the kubelet's."""
    sandbox = own.run()
    container = own.container(sandbox, "sh", "-c", "echo said; exec sleep 1000")
    log = Path(own.status(container).log_path)
    await_true(lambda: "said" in log.read_text(), "the log")
    refused = minirt_server.minirt("pod", "rm", sandbox)
    assert (refused.returncode, own.sandboxes(**READY)) == (1, [sandbox])
    assert minirt_server.minirt.output("pod", "rm", "-f", sandbox) == sandbox
    assert (own.sandboxes(), own.containers()) == ([], [])
    assert "said" in log.read_text()
