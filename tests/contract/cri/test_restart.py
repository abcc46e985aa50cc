"""The server ends, or is killed: containers go on, and the next one knows everything."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minirt.crimessages import api_pb2 as cri
from tests.peers import busybox
from tests.peers.cri import MODE, SLEEP, Pods, Runtime
from tests.peers.daemon import await_true
from tests.peers.serve import Server, own_server

pytestmark = [pytest.mark.root]
STATE = cri.ContainerState
RUNNING = {"state": cri.ContainerStateValue(state=STATE.CONTAINER_RUNNING)}
LAST = ("sh", "-c", "until [ -e /shared/go ]; do sleep 0.02; done; echo over; exit 42")
COUNT = ("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done")


@pytest.fixture
def server(tmp_path: Path, busybox_store: Path) -> Iterator[Server]:
    """A server of this test's own."""
    with own_server(tmp_path, busybox_store) as server:
        yield server


def client(server: Server) -> Runtime:
    return Runtime("minirt", server.socket)


def pods_of(server: Server, tmp_path: Path) -> Pods:
    (tmp_path / "logs").mkdir(exist_ok=True)
    return Pods(client(server), tmp_path / "logs")


def kill(server: Server) -> None:
    os.kill(server.daemon.process.pid, signal.SIGKILL)
    server.daemon.process.wait()


def again(server: Server, pods: Pods) -> None:
    pods.runtime.close()
    server.start()
    pods.runtime = client(server)


def world(pods: Pods) -> tuple[list[cri.PodSandbox], list[cri.Container]]:
    sandboxes = pods.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items
    return list(sandboxes), list(pods.runtime.ListContainers(cri.ListContainersRequest()).containers)


def end(pods: Pods) -> None:
    pods.close()
    pods.runtime.close()


def test_killed_under_load_it_loses_nothing_and_the_next_one_lists_the_same(server: Server, tmp_path: Path) -> None:
    """Of 20 pods some write numbers, some end while there is no server, some are busy with what they are asked."""
    pods = pods_of(server, tmp_path)
    containers = started(pods, [COUNT, LAST, SLEEP, SLEEP] * 5, tmp_path)
    logs = {container: Path(pods.status(container).log_path) for container in containers}
    before = world(pods)
    with ThreadPoolExecutor(5) as pool:
        asking = [pool.submit(exec_until_refused, pods, container) for container in containers[2::4]]
        await_true(lambda: not any(each.done() for each in asking), "calls under way")
        kill(server)
        assert [each.result(30) for each in asking]
    (tmp_path / "go").touch()
    for container in containers[1::4]:
        await_true(lambda log=logs[container]: "over" in log.read_text(), "its end")  # type: ignore[misc]
    lengths = {container: len(logs[container].read_text()) for container in containers[::4]}
    for container, length in lengths.items():
        await_true(lambda log=logs[container], least=length + 200: len(log.read_text()) > least, "more")  # type: ignore[misc]
    again(server, pods)
    begun = time.monotonic()
    after = world(pods)
    assert time.monotonic() - begun < 1
    assert after[0] == before[0]
    assert [each.id for each in after[1]] == [each.id for each in before[1]]
    for container in containers[::4]:
        numbers = list(map(int, pods.log(container).split()))
        assert numbers == list(range(1, len(numbers) + 1))
    for container in containers[1::4]:
        assert (pods.ended(container).exit_code, pods.status(container).reason) == (42, "Error")
    assert set(pods.containers(**RUNNING)) == set(containers) - set(containers[1::4])
    end(pods)


def started(pods: Pods, commands: list[tuple[str, ...]], shared: Path) -> list[str]:
    """Start a pod for each command, 8 at a time; return their containers, which see a directory of the test's."""
    mounts = [cri.Mount(host_path=str(shared), container_path="/shared")]
    work = [(pods.config(), command) for command in commands]
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda one: pods.container(pods.run(one[0]), *one[1], mounts=mounts), work))


def exec_until_refused(pods: Pods, container: str) -> bool:
    """Execute commands until the server ends."""
    import grpc

    try:
        while pods.exec(container, "true").exit_code == 0:
            pass
    except grpc.RpcError:
        return True
    return False


def log_of(pods: Pods, sandbox: str) -> list[str]:
    directory = Path(pods.configs[sandbox].log_directory)
    return [line for path in directory.iterdir() for line in path.read_text().splitlines()]


def test_a_new_server_stops_execs_and_removes_what_the_old_one_made(server: Server, tmp_path: Path) -> None:
    pods = pods_of(server, tmp_path)
    sandbox = pods.run()
    running, created = pods.container(sandbox), pods.create(sandbox)
    kill(server)
    again(server, pods)
    assert pods.exec(running, "echo", "hello").stdout == b"hello\n"
    pods.start(created)
    assert pods.status(created).state == STATE.CONTAINER_RUNNING
    pods.stop(sandbox)
    assert pods.status(running).state == STATE.CONTAINER_EXITED
    pods.remove(sandbox)
    assert world(pods) == ([], [])
    end(pods)


def test_killed_in_the_middle_of_much_work_it_leaves_nothing_half_made(server: Server, tmp_path: Path) -> None:
    pods = pods_of(server, tmp_path)
    configs = [pods.config() for _ in range(12)]
    run = pods.runtime.method("RunPodSandbox")
    calls = [run.future(cri.RunPodSandboxRequest(config=config)) for config in configs]
    calls[0].result(30)
    kill(server)
    assert all(call.done() or call.exception() for call in calls)
    again(server, pods)
    ready = [config.metadata.name for config in configs if config.metadata.name in listed(pods)]
    await_true(lambda: not any(retry(pods, config) for config in configs), "each name to be free or ready")
    assert set(ready) <= set(listed(pods))
    assert len(listed(pods)) == 12
    pods.made += pods.sandboxes()
    end(pods)


def listed(pods: Pods) -> list[str]:
    return [item.metadata.name for item in pods.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items]


def retry(pods: Pods, config: cri.PodSandboxConfig) -> bool:
    """Make a pod that is not there, as a kubelet would; return whether it must be tried again."""
    import grpc

    if config.metadata.name in listed(pods):
        return False
    try:
        pods.run(config)
    except grpc.RpcError:
        return True
    return False


def test_sigterm_ends_the_server_and_not_the_containers(server: Server, tmp_path: Path) -> None:
    pods = pods_of(server, tmp_path)
    sandbox = pods.run()
    container = pods.container(sandbox, *COUNT)
    pods.runtime.close()
    server.daemon.process.send_signal(signal.SIGTERM)
    assert server.daemon.process.wait(20) == 0
    assert not server.socket.exists()
    count = len(log_of(pods, sandbox))
    await_true(lambda: len(log_of(pods, sandbox)) > count + 5, "more lines")
    again(server, pods)
    assert pods.status(container).state == STATE.CONTAINER_RUNNING
    end(pods)


def test_without_the_state_of_this_boot_the_store_still_works(server: Server, tmp_path: Path) -> None:
    pods = pods_of(server, tmp_path)
    sandbox = pods.run()
    pods.remove(sandbox)
    kill(server)
    shutil.rmtree(server.minirt.state)
    again(server, pods)
    security = cri.LinuxSandboxSecurityContext(namespace_options=cri.NamespaceOption(network=MODE.NODE))
    sandbox = pods.run(linux=cri.LinuxPodSandboxConfig(security_context=security))
    assert pods.output(sandbox, "echo", "hello") == "hello\n"
    found = pods.runtime.ListImages(cri.ListImagesRequest()).images
    assert [image.repo_tags for image in found] == [[busybox.NAME]]
    end(pods)


def test_when_the_zygote_has_died_the_server_starts_anew(server: Server, tmp_path: Path) -> None:
    pods = pods_of(server, tmp_path)
    sandbox = pods.run()
    container = pods.container(sandbox, *COUNT)
    pid = server.daemon.process.pid
    os.kill(zygote_of(pid), signal.SIGKILL)
    await_true(lambda: server.daemon.log().count("serving the CRI") == 2, "the second start")
    pods.runtime.close()
    pods.runtime = client(server)
    assert server.daemon.process.poll() is None
    assert pods.status(container).state == STATE.CONTAINER_RUNNING
    assert pods.output(pods.run(), "echo", "hello") == "hello\n"
    end(pods)


def zygote_of(pid: int) -> int:
    """Return the one child of a server."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    (found,) = {int(child) for thread in threads for child in (thread / "children").read_text().split()}
    return found
