"""Callers: many at once, callers that go away, and what they must not see."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from minirt.crimessages import api_pb2 as cri
from tests.command import Minirt
from tests.contract.cri.conftest import code_of
from tests.peers import busybox
from tests.peers.cri import MODE, Pods, Runtime
from tests.peers.daemon import await_true
from tests.peers.serve import Server

SANDBOX = cri.PodSandboxState
pytestmark = [pytest.mark.root, pytest.mark.peer]


def test_two_hundred_calls_in_flight(pods: Pods) -> None:
    sandbox = pods.run()
    containers = [pods.container(sandbox) for _ in range(4)]
    waiting = [
        pods.runtime.method("ExecSync").future(
            cri.ExecSyncRequest(container_id=containers[number % 4], cmd=["sh", "-c", f"sleep 1; echo {number}"])
        )
        for number in range(40)
    ]
    listing = [pods.runtime.method("ListContainers").future(cri.ListContainersRequest()) for _ in range(80)]
    looking = [
        pods.runtime.method("ContainerStatus").future(cri.ContainerStatusRequest(container_id=containers[number % 4]))
        for number in range(80)
    ]
    assert [call.result(60).stdout for call in waiting] == [f"{number}\n".encode() for number in range(40)]
    assert all(len(call.result(60).containers) == 4 for call in listing)
    assert all(call.result(60).status.id in containers for call in looking)


def time_of_a_sandbox(pods: Pods) -> float:
    """Return how many seconds one takes: whoever leaves when it is done, and its id on the way, leaves it behind."""
    took: list[float] = []
    for _ in range(3):
        begun = time.perf_counter()
        pods.run()
        took.append(time.perf_counter() - begun)
    pods.close()
    pods.made.clear()
    return min(took)


def status_or_none(pods: Pods, sandbox: str) -> int | None:
    """Return a sandbox's state; None where it is gone by now."""
    try:
        return pods.sandbox_status(sandbox).state
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND
        return None


def test_a_caller_that_goes_away_leaves_no_half_made_sandbox(pods: Pods) -> None:
    if pods.runtime.name == "containerd":
        pytest.skip("differs: containerd: it keeps some, and leaves shims")
    calls, whole_s = [], time_of_a_sandbox(pods)
    for delay in (0, 0.1 * whole_s, 0.2 * whole_s, 0.4 * whole_s, 0.6 * whole_s):
        request = cri.RunPodSandboxRequest(config=pods.config())
        calls.append(pods.runtime.method("RunPodSandbox").future(request))
        time.sleep(delay)
        calls[-1].cancel()
    done = [call.result().pod_sandbox_id for call in calls if not call.cancelled()]
    pods.made += done
    known = set(pods.sandboxes())
    pods.made += known
    for one in known:
        assert status_or_none(pods, one) in (None, SANDBOX.SANDBOX_READY, SANDBOX.SANDBOX_NOTREADY)
    await_true(lambda: set(pods.sandboxes()) == set(done), "the end of what was cancelled")


def test_a_pod_whose_first_try_was_cancelled_can_be_made(pods: Pods) -> None:
    if pods.runtime.name == "containerd":
        pytest.skip("differs: containerd: it keeps some, and leaves shims")
    config, whole_s = pods.config(), time_of_a_sandbox(pods)
    call = pods.runtime.method("RunPodSandbox").future(cri.RunPodSandboxRequest(config=config))
    time.sleep(0.3 * whole_s)
    call.cancel()

    def made() -> bool:
        try:
            pods.run(config)
        except grpc.RpcError:
            return False
        return True

    await_true(made, "the second try")


def test_a_deadline_ends_the_call(pods: Pods) -> None:
    container = pods.container(pods.run())
    request = cri.ExecSyncRequest(container_id=container, cmd=["sleep", "3"])
    seen = code_of(lambda: pods.runtime.ExecSync(request, timeout=0.3))
    assert seen == grpc.StatusCode.DEADLINE_EXCEEDED or pods.runtime.name == "containerd", "its own word may come first"


def test_a_method_that_is_not_there_is_unimplemented(runtime: Runtime) -> None:
    request = cri.CheckpointContainerRequest(container_id="0" * 64)
    assert code_of(lambda: runtime.CheckpointContainer(request)) == grpc.StatusCode.UNIMPLEMENTED


def test_two_on_the_same_sandbox(pods: Pods) -> None:
    sandbox = pods.run()
    pods.container(sandbox)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(pods.stop, sandbox) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        calls += [pool.submit(pods.remove, sandbox) for _ in range(8)]
    assert pods.runtime.name == "containerd" or not any(call.exception() for call in calls)
    pods.remove(sandbox)
    assert sandbox not in pods.sandboxes()


@pytest.fixture
def theirs(minirt_server: Server) -> Minirt:
    """The command line of the server's own installation."""
    return minirt_server.minirt


def test_a_command_line_users_container_is_not_seen(minirt_runtime: Runtime, theirs: Minirt) -> None:
    name = theirs.output("run", "-d", "--network", "none", "--name", "own", busybox.NAME, "sleep", "1000")
    try:
        assert len(minirt_runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items) == 0
        assert len(minirt_runtime.ListContainers(cri.ListContainersRequest()).containers) == 0
        whole = theirs.output("inspect", "own").split('"id": "')[1][:64]
        request = cri.ContainerStatusRequest(container_id=whole)
        assert code_of(lambda: minirt_runtime.ContainerStatus(request)) == grpc.StatusCode.NOT_FOUND
        minirt_runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=whole))
        assert name[:12] in theirs.output("ps")
    finally:
        theirs("rm", "-f", "own")


def test_a_second_server_of_the_same_state_is_refused(minirt_server: Server, theirs: Minirt) -> None:
    done = theirs("serve", "--listen", minirt_server.directory / "second.sock")
    assert done.returncode == 125
    assert "another minirt serve has" in done.stderr


@pytest.mark.parametrize("path", ["relative.sock", "/" + "long/" * 30 + "x.sock", "/etc/passwd"])
def test_a_path_that_can_be_no_socket_is_refused(minirt: Minirt, path: str) -> None:
    done = minirt("serve", "--listen", path)
    assert done.returncode == 125
    assert f"cannot listen on {path}" in done.stderr


def test_the_socket_is_for_root_alone(minirt_server: Server) -> None:
    assert minirt_server.socket.stat().st_mode & 0o777 == 0o600


def test_a_server_forks_nothing(minirt_server: Server, minirt_runtime: Runtime) -> None:
    options = cri.NamespaceOption(network=MODE.NODE)
    linux = cri.LinuxPodSandboxConfig(security_context=cri.LinuxSandboxSecurityContext(namespace_options=options))
    config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="f", uid="f", namespace="f"), linux=linux)
    made = minirt_runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config)).pod_sandbox_id
    pid = minirt_server.daemon.process.pid
    seen = subprocess.run(["ps", "-o", "comm=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    minirt_runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=made))
    assert seen.split() == ["minirt-zygote"]
