"""Containers: made, started, stopped, removed; what their status says."""

import re
import threading
from pathlib import Path

import grpc
import pytest

from minirt.crimessages import api_pb2 as cri
from tests.contract.cri.conftest import code_of
from tests.peers import busybox
from tests.peers.cri import MODE, Pods
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer]
STATE = cri.ContainerState
UNKNOWN_ID = "0" * 64
OWN_PID = {
    "linux": cri.LinuxContainerConfig(
        security_context=cri.LinuxContainerSecurityContext(namespace_options=cri.NamespaceOption(pid=MODE.CONTAINER))
    )
}
POLITE = ("sh", "-c", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done")
STUBBORN = ("sh", "-c", "trap 'echo asked' TERM; echo up; while :; do sleep 0.05; done")


@pytest.fixture
def sandbox(pods: Pods) -> str:
    return pods.run()


def stop(pods: Pods, container: str, timeout: int) -> None:
    pods.runtime.StopContainer(cri.StopContainerRequest(container_id=container, timeout=timeout))


def remove(pods: Pods, container: str) -> None:
    pods.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container))


def up(pods: Pods, sandbox: str, command: tuple[str, ...], **fields: object) -> str:
    container = pods.container(sandbox, *command, **fields)
    await_true(lambda: "up" in pods.log(container), "its first word")
    return container


def test_a_new_container_is_created_and_not_started(pods: Pods, sandbox: str) -> None:
    config = pods.container_config(labels={"app": "web"}, annotations={"note": "ü\t"})
    container = pods.create(sandbox, config=config)
    status = pods.status(container)
    assert status.state == STATE.CONTAINER_CREATED
    assert (status.id, status.metadata) == (container, config.metadata)
    assert status.created_at > 0
    assert (status.started_at, status.finished_at, status.exit_code) == (0, 0, 0)
    assert dict(status.labels) == {"app": "web"}
    assert dict(status.annotations) == {"note": "ü\t"}


def test_a_running_container_says_since_when_and_what_it_is(pods: Pods, sandbox: str) -> None:
    config = pods.container_config()
    container = pods.container(sandbox, config=config)
    status = pods.status(container)
    assert status.state == STATE.CONTAINER_RUNNING
    assert status.created_at <= status.started_at
    assert status.finished_at == 0
    assert status.image.image == busybox.NAME
    assert status.image_ref
    assert status.log_path == str(pods.logs / pods.configs[sandbox].metadata.name / config.log_path)


@pytest.mark.parametrize(("code", "reason"), [(0, "Completed"), (3, "Error"), (255, "Error")])
def test_an_exit_code_is_kept_with_its_reason(pods: Pods, sandbox: str, code: int, reason: str) -> None:
    status = pods.ended(pods.container(sandbox, "sh", "-c", f"exit {code}"))
    assert (status.exit_code, status.reason) == (code, reason)
    assert min(status.started_at, status.finished_at) > status.created_at


def test_a_command_that_is_not_there_fails_the_start_and_is_on_record(pods: Pods, sandbox: str) -> None:
    container = pods.create(sandbox, "/no/such/program")
    with pytest.raises(grpc.RpcError, match="no/such/program"):
        pods.start(container)
    status = pods.status(container)
    assert status.state == STATE.CONTAINER_EXITED
    assert (status.exit_code, status.reason) == (128, "StartError")
    assert "/no/such/program" in status.message


def test_a_container_starts_once(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox)
    with pytest.raises(grpc.RpcError):
        pods.start(container)
    assert pods.status(container).state == STATE.CONTAINER_RUNNING
    ended = pods.container(sandbox, "true")
    pods.ended(ended)
    with pytest.raises(grpc.RpcError):
        pods.start(ended)


def test_what_is_unknown_cannot_be_started_or_looked_at(pods: Pods) -> None:
    assert code_of(lambda: pods.start(UNKNOWN_ID)) == grpc.StatusCode.NOT_FOUND
    assert code_of(lambda: pods.status(UNKNOWN_ID)) == grpc.StatusCode.NOT_FOUND
    assert code_of(lambda: pods.exec(UNKNOWN_ID, "true")) == grpc.StatusCode.NOT_FOUND


def test_what_is_unknown_can_be_removed(pods: Pods) -> None:
    remove(pods, UNKNOWN_ID)


@pytest.mark.differs("containerd", "NOT_FOUND, which the interface's text forbids and kubelets overlook")
def test_what_is_unknown_can_be_stopped(pods: Pods) -> None:
    stop(pods, UNKNOWN_ID, 0)


def test_a_container_needs_a_sandbox_that_is_there(pods: Pods) -> None:
    request = cri.CreateContainerRequest(
        pod_sandbox_id=UNKNOWN_ID, config=pods.container_config(), sandbox_config=pods.config()
    )
    with pytest.raises(grpc.RpcError):
        pods.runtime.CreateContainer(request)


def test_a_stopped_sandbox_takes_no_container(pods: Pods, sandbox: str) -> None:
    pods.stop(sandbox)
    with pytest.raises(grpc.RpcError):
        pods.create(sandbox)


def test_a_container_does_not_start_in_a_stopped_sandbox(pods: Pods, sandbox: str) -> None:
    container = pods.create(sandbox)
    pods.stop(sandbox)
    with pytest.raises(grpc.RpcError):
        pods.start(container)
    assert pods.status(container).state != STATE.CONTAINER_RUNNING


def test_a_configuration_without_metadata_is_refused(pods: Pods, sandbox: str) -> None:
    config = cri.ContainerConfig(image=cri.ImageSpec(image=busybox.NAME), command=["true"])
    with pytest.raises(grpc.RpcError):
        pods.create(sandbox, config=config)
    assert pods.containers() == []


def test_an_image_that_is_not_there_is_an_error(pods: Pods, sandbox: str) -> None:
    with pytest.raises(grpc.RpcError):
        pods.create(sandbox, image=cri.ImageSpec(image="localhost/absent:1"))
    assert pods.containers() == []


def test_an_image_may_be_named_by_its_id(pods: Pods, sandbox: str) -> None:
    spec = cri.ImageSpec(image=busybox.NAME)
    found = pods.runtime.ImageStatus(cri.ImageStatusRequest(image=spec)).image
    container = pods.container(sandbox, image=cri.ImageSpec(image=found.id))
    assert pods.status(container).image_ref in {found.id, *found.repo_digests}


def test_the_same_name_twice_is_refused_until_the_first_is_removed(pods: Pods, sandbox: str) -> None:
    config = pods.container_config()
    first = pods.create(sandbox, config=config)
    with pytest.raises(grpc.RpcError):
        pods.create(sandbox, config=config)
    remove(pods, first)
    assert pods.create(sandbox, config=config) != first


def test_another_attempt_is_another_container(pods: Pods, sandbox: str) -> None:
    config = pods.container_config()
    first = pods.create(sandbox, config=config)
    config.metadata.attempt = 1
    second = pods.create(sandbox, config=config)
    assert set(pods.containers()) == {first, second}


def test_of_the_same_name_at_once_one_is_made(pods: Pods, sandbox: str) -> None:
    config = pods.container_config()
    refused: list[grpc.RpcError] = []

    def create() -> None:
        try:
            pods.create(sandbox, config=config)
        except grpc.RpcError as error:
            refused.append(error)

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(pods.containers()), len(refused)) == (1, 5)


def test_stop_asks_first_and_waits(pods: Pods, sandbox: str) -> None:
    container = up(pods, sandbox, POLITE)
    stop(pods, container, 30)
    status = pods.status(container)
    assert (status.state, status.exit_code) == (STATE.CONTAINER_EXITED, 7)
    assert pods.log(container) == "up\nbye\n"


def test_stop_kills_when_the_time_is_up(pods: Pods, sandbox: str) -> None:
    container = up(pods, sandbox, STUBBORN)
    stop(pods, container, 1)
    assert pods.status(container).exit_code == 137
    assert "asked" in pods.log(container)


def test_stop_without_time_kills_at_once(pods: Pods, sandbox: str) -> None:
    container = up(pods, sandbox, POLITE)
    stop(pods, container, 0)
    assert pods.status(container).exit_code == 137
    assert pods.log(container) == "up\n"


def test_stop_may_be_said_again(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox, "true")
    pods.ended(container)
    for _ in range(2):
        stop(pods, container, 5)
    assert pods.status(container).exit_code == 0


def test_a_caller_that_gives_up_on_a_stop_and_asks_again_sends_no_second_signal(pods: Pods, sandbox: str) -> None:
    container = up(pods, sandbox, STUBBORN)
    request = cri.StopContainerRequest(container_id=container, timeout=60)
    with pytest.raises(grpc.RpcError):
        pods.runtime.StopContainer(request, timeout=0.7)
    stop(pods, container, 1)
    assert pods.status(container).exit_code == 137
    assert pods.log(container).count("asked") == 1 or pods.runtime.name == "containerd"


def test_several_may_stop_the_same_container_at_once(pods: Pods, sandbox: str) -> None:
    container = up(pods, sandbox, POLITE)
    threads = [threading.Thread(target=stop, args=(pods, container, 30)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pods.status(container).exit_code == 7


def test_a_created_container_can_be_stopped_and_removed(pods: Pods, sandbox: str) -> None:
    container = pods.create(sandbox)
    stop(pods, container, 0)
    remove(pods, container)
    assert pods.containers() == []


def test_a_running_container_can_be_removed(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox)
    remove(pods, container)
    assert code_of(lambda: pods.status(container)) == grpc.StatusCode.NOT_FOUND
    remove(pods, container)


def test_several_may_remove_the_same_container_at_once(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox, "true")
    pods.ended(container)
    failed: list[grpc.RpcError] = []

    def once() -> None:
        try:
            remove(pods, container)
        except grpc.RpcError as error:
            failed.append(error)

    threads = [threading.Thread(target=once) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pods.containers() == []
    assert not failed or pods.runtime.name == "containerd"


def test_a_removed_containers_log_stays(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox, "echo", "hello")
    path = Path(pods.ended(container).log_path)
    remove(pods, container)
    assert "hello" in path.read_text()


def test_lists_can_be_filtered(pods: Pods, sandbox: str) -> None:
    other = pods.run()
    web = pods.container(sandbox, labels={"app": "web"})
    data = pods.container(other, "true", labels={"app": "data"})
    pods.ended(data)
    new = pods.create(other)
    assert set(pods.containers()) == {web, data, new}
    assert set(pods.containers(pod_sandbox_id=other)) == {data, new}
    assert pods.containers(label_selector={"app": "data"}) == [data]
    assert pods.containers(label_selector={"app": "data", "no": "such"}) == []
    assert pods.containers(id=web) == [web]
    assert pods.containers(id=web[:12]) == [web]
    assert pods.containers(id=UNKNOWN_ID) == []
    by_state = {STATE.CONTAINER_RUNNING: web, STATE.CONTAINER_EXITED: data, STATE.CONTAINER_CREATED: new}
    for state, found in by_state.items():
        assert pods.containers(state=cri.ContainerStateValue(state=state)) == [found]


def test_a_list_shows_what_the_status_says(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox, labels={"a": "b"}, annotations={"c": "d"})
    listed = pods.runtime.ListContainers(cri.ListContainersRequest()).containers[0]
    status = pods.status(container)
    for name in ("id", "metadata", "state", "created_at", "labels", "annotations"):
        assert getattr(listed, name) == getattr(status, name)
    assert listed.pod_sandbox_id == sandbox
    assert listed.image.image
    assert listed.image_ref


def test_logs_say_when_and_which_stream(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox, "sh", "-c", "echo out; echo err >&2; printf part")
    lines = Path(pods.ended(container).log_path).read_text().splitlines()
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d)"
    found = [re.fullmatch(rf"{time} (stdout|stderr) ([FP]) (.*)", line) for line in lines]
    words = sorted((line[2], line[4]) for line in found if line)
    assert words == [("stderr", "err"), ("stdout", "out"), ("stdout", "part")]


def test_a_long_line_is_cut_into_parts(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox, "sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x; echo; echo end")
    lines = Path(pods.ended(container).log_path).read_text().splitlines()
    tags = [line.split(" ")[2][0] for line in lines]
    assert tags == ["P", "P", "F", "F"]
    assert sum(len(line.split(" ", 3)[3]) for line in lines[:3]) == 40000


def test_a_rotated_log_is_opened_anew(pods: Pods, sandbox: str) -> None:
    script = "trap 'echo second' USR1; echo first; while :; do sleep 0.05; done"
    container = pods.container(sandbox, "sh", "-c", script, **OWN_PID)
    path = Path(pods.status(container).log_path)
    await_true(lambda: "first" in path.read_text(), "the first line")
    path.rename(path.with_suffix(".old"))
    pods.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=container))
    pods.exec(container, "kill", "-USR1", "1")
    await_true(lambda: "second" in path.read_text(), "the second line")
    assert "second" not in path.with_suffix(".old").read_text()


def test_the_log_of_an_ended_container_is_not_opened_anew(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox, "true")
    path = Path(pods.ended(container).log_path)
    path.rename(path.with_suffix(".old"))
    with pytest.raises(grpc.RpcError):
        pods.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=container))
    assert not path.exists()


def test_verbose_status_has_information_and_a_plain_one_has_none(pods: Pods, sandbox: str) -> None:
    container = pods.container(sandbox)
    for verbose in (False, True):
        request = cri.ContainerStatusRequest(container_id=container, verbose=verbose)
        assert bool(pods.runtime.ContainerStatus(request).info) is verbose
