"""Runtime handlers: minirt's pods with their containers run by runc and crun, and nobody sees a difference."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from minirt.crimessages import api_pb2 as cri
from tests.command import Minirt
from tests.contract.cri.conftest import refused
from tests.contract.cri.test_streaming import Spdy, attach_url, exec_url
from tests.peers.cri import MODE, Pods, Runtime
from tests.peers.daemon import await_true
from tests.peers.serve import Server

pytestmark = [pytest.mark.root, pytest.mark.peer]
STATE = cri.ContainerState
MIB = 1 << 20
CRUN = pytest.param("crun", marks=pytest.mark.vm, id="crun")  # 1.8 wants CAP_SYS_RESOURCE for rules about devices
POLITE = ("sh", "-c", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done")


@pytest.fixture(params=["minirt", "runc", CRUN])
def pods(request: pytest.FixtureRequest, minirt_runtime: Runtime, tmp_path: Path) -> Iterator[Pods]:
    """What makes pods of one handler."""
    found = Pods(minirt_runtime, tmp_path, handler=request.param)
    yield found
    found.close()


def stop(pods: Pods, container: str, grace_s: int) -> None:
    pods.runtime.StopContainer(cri.StopContainerRequest(container_id=container, timeout=grace_s))


def test_what_runs_a_pod_is_told_and_leaves_nothing(pods: Pods, sandbox: str, minirt_server: Server) -> None:
    container = pods.container(sandbox, "sh", "-c", "echo out; echo err >&2; exit 3")
    status = pods.ended(container)
    assert (status.exit_code, status.reason, status.message) == (3, "Error", "")
    assert sorted(pods.log(container).splitlines()) == ["err", "out"]
    listed = pods.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items
    assert [one.runtime_handler for one in listed] == [pods.handler]
    assert pods.sandbox_status(sandbox).runtime_handler == pods.handler
    state = minirt_server.minirt.state / "containers" / container
    assert (state / "runtime" / "config.json").exists() == (pods.handler != "minirt")
    pods.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container))
    assert not state.exists()


@pytest.mark.parametrize("command", ["/no/such/program", "no-such-program"])
def test_a_command_that_is_not_there_fails_the_start(pods: Pods, sandbox: str, command: str) -> None:
    container = pods.create(sandbox, command)
    with pytest.raises(grpc.RpcError, match=command):
        pods.start(container)
    status = pods.status(container)
    assert (status.state, status.exit_code, status.reason) == (STATE.CONTAINER_EXITED, 128, "StartError")
    assert command in status.message


def test_commands_are_executed_in_it(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox)
    found = pods.exec(container, "sh", "-c", "echo $$; echo err >&2; exit 4")
    assert (int(found.stdout) > 1, found.stderr, found.exit_code) == (True, b"err\n", 4)
    assert [pods.exec(container, "true").exit_code for _ in range(5)] == [0] * 5
    with pytest.raises(grpc.RpcError, match="no-such-program"):
        pods.exec(container, "no-such-program")
    with pytest.raises(grpc.RpcError) as late:
        pods.exec(container, "sleep", "1000", timeout_s=1)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    stats = pods.runtime.ContainerStats(cri.ContainerStatsRequest(container_id=container)).stats
    assert stats.attributes.id == container
    assert pods.status(container).state == STATE.CONTAINER_RUNNING


def test_terminals_are_its_own(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox, "sh", stdin=True, tty=True)
    with Spdy(attach_url(pods, container, stdin=True, tty=True, stderr=False), stdin=True, tty=True) as talk:
        talk.resize(99, 33)
        talk.send(b"sleep 0.2; stty size; test -c /dev/console && echo $((6*7))\n")
        talk.wait_for(b"33 99\r\n")
        talk.wait_for(b"42\r\n")
    with Spdy(exec_url(pods, container, "sh", "-c", "tty; exit 4", tty=True), tty=True) as talk:
        stdout, _, status = talk.end()
    assert stdout.startswith(b"/dev/pts/")
    assert status["details"]["causes"][0]["message"] == "4"


def test_it_is_asked_to_end_and_then_killed(pods: Pods, sandbox: str) -> None:
    polite, stubborn = pods.container(sandbox, *POLITE), pods.container(sandbox)
    await_true(lambda: "up" in pods.log(polite), "its first word")
    stop(pods, polite, 30)
    assert (pods.status(polite).exit_code, pods.log(polite)) == (7, "up\nbye\n")
    stop(pods, stubborn, 0)
    assert (pods.status(stubborn).exit_code, pods.status(stubborn).reason) == (137, "Error")


@pytest.mark.vm
def test_limits_are_kept_changed_and_told_of(pods: Pods, sandbox: str) -> None:
    def limits(bytes: int) -> cri.LinuxContainerResources:
        return cri.LinuxContainerResources(memory_limit_in_bytes=bytes)

    container = pods.container(sandbox, linux=cri.LinuxContainerConfig(resources=limits(64 * MIB)))
    assert int(pods.exec(container, "cat", "/sys/fs/cgroup/memory.max").stdout) == 64 * MIB
    pods.runtime.UpdateContainerResources(
        cri.UpdateContainerResourcesRequest(container_id=container, linux=limits(16 * MIB))
    )
    assert int(pods.exec(container, "cat", "/sys/fs/cgroup/memory.max").stdout) == 16 * MIB
    greedy = pods.container(sandbox, "tail", "/dev/zero", linux=cri.LinuxContainerConfig(resources=limits(16 * MIB)))
    status = pods.ended(greedy)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


def test_what_another_runtime_cannot_do_is_refused(minirt_runtime: Runtime, tmp_path: Path) -> None:
    pods = Pods(minirt_runtime, tmp_path, handler="crun" if shutil.which("crun") else "runc")
    told = {one.name: one.features for one in minirt_runtime.Status(cri.StatusRequest()).runtime_handlers}
    ids = [cri.IDMapping(host_id=1_000_000, container_id=0, length=65_536)]
    users = cri.NamespaceOption(userns_options=cri.UserNamespace(mode=MODE.POD, uids=ids, gids=ids))
    assert not told[pods.handler].user_namespaces
    with pytest.raises(grpc.RpcError, match="user namespace"):
        pods.run(
            linux=cri.LinuxPodSandboxConfig(security_context=cri.LinuxSandboxSecurityContext(namespace_options=users))
        )
    volume = cri.Mount(host_path=str(tmp_path), container_path="/data", readonly=True, recursive_read_only=True)
    if not told[pods.handler].recursive_read_only_mounts:
        refused(pods, pods.run(), mounts=[volume])
    pods.close()


@pytest.fixture
def server(tmp_path: Path, busybox_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of this test's own, for which runc is a link that can be removed."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "runc").symlink_to(str(shutil.which("runc")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    minirt = Minirt(tmp_path / "root", Path(tempfile.mkdtemp(prefix="handlers-", dir=os.environ["MINIRT_STATE"])))
    shutil.copytree(busybox_store, minirt.root, symlinks=True)
    server = Server(minirt, tmp_path)
    yield server
    server.close()
    minirt("system", "prune")


def test_a_pod_outlives_the_server_and_its_own_runtime(server: Server, tmp_path: Path) -> None:
    pods = Pods(Runtime("minirt", server.socket), tmp_path, handler="runc")
    container = pods.container(sandbox := pods.run(), *POLITE)
    await_true(lambda: "up" in pods.log(container), "its first word")
    pods.runtime.close()
    os.kill(server.daemon.process.pid, signal.SIGKILL)
    server.daemon.process.wait()
    server.start()
    pods.runtime = Runtime("minirt", server.socket)
    assert pods.exec(container, "echo", "still here").stdout == b"still here\n"
    (tmp_path / "bin" / "runc").unlink()
    with pytest.raises(grpc.RpcError, match="install it again"):
        pods.exec(container, "true")
    stop(pods, container, 30)
    status = pods.status(container)
    assert (status.exit_code, pods.log(container)) == (7, "up\nbye\n")
    assert "runc has not deleted the container" in status.message
    pods.stop(sandbox)
    pods.remove(sandbox)
    assert not list((server.minirt.state / "containers").iterdir())
    pods.runtime.close()


def test_a_runtime_that_hangs_is_no_obstacle(server: Server, tmp_path: Path) -> None:
    runc = tmp_path / "bin" / "runc"
    runc.unlink()
    runc.write_text("#!/bin/sh\nexec sleep 1000000\n")
    runc.chmod(0o755)
    pods = Pods(Runtime("minirt", server.socket), tmp_path, handler="runc")
    container = pods.create(sandbox := pods.run())
    start = pods.runtime.method("StartContainer").future(cri.StartContainerRequest(container_id=container))
    bundle = server.minirt.state / "containers" / container / "runtime" / "config.json"
    await_true(bundle.exists, "the runtime to be called")
    pods.stop(sandbox)
    assert start.exception(timeout=30) is not None
    assert pods.status(container).reason == "StartError"
    pods.remove(sandbox)
    pods.runtime.close()
