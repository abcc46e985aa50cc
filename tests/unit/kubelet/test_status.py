import msgspec
import pytest

from minirt.kubelet import status as statuses
from minirt.kubelet.manifest import Pod
from minirt.kubelet.pods import Actual
from minirt.kubelet.status import PodStatus, Waiting
from tests.unit.kubelet.pods import CREATED, DEAD, EXITED, RUNNING, actual, container, pod, status

TWO = pod(container("a"), container("b"))
NEVER = pod(container("a"), container("b"), restartPolicy="Never")
INIT = pod(container("a"), initContainers=[container("i")], restartPolicy="Never")


def conditions(found: PodStatus) -> list[str]:
    return [each.type for each in found.conditions if each.status == "True"]


@pytest.mark.parametrize(
    ("of", "found", "phase"),
    [
        (TWO, Actual(), "Pending"),
        (TWO, actual(), "Pending"),
        (TWO, actual(status("a", RUNNING)), "Pending"),
        (TWO, actual(status("a", RUNNING), status("b", CREATED)), "Pending"),
        (TWO, actual(status("a", RUNNING), status("b", RUNNING)), "Running"),
        (TWO, actual(status("a", RUNNING), status("b", EXITED, 1)), "Running"),
        (TWO, actual(status("a", EXITED), status("b", EXITED)), "Running"),
        (TWO, actual(status("a", EXITED), status("b", EXITED), state=DEAD), "Succeeded"),
        (TWO, actual(status("a", EXITED, 137), status("b", EXITED), state=DEAD), "Failed"),
        (TWO, actual(status("a", EXITED), state=DEAD), "Pending"),
        (NEVER, actual(status("a", EXITED), status("b", RUNNING)), "Running"),
        (NEVER, actual(status("a", EXITED), status("b", EXITED)), "Succeeded"),
        (NEVER, actual(status("a", EXITED, 1), status("b", EXITED)), "Failed"),
        (INIT, actual(status("i", RUNNING)), "Pending"),
        (INIT, actual(status("i", EXITED, 1)), "Failed"),
        (INIT, actual(status("i", EXITED), status("a", RUNNING)), "Running"),
    ],
)
def test_phases(of: Pod, found: Actual, phase: str) -> None:
    assert statuses.of(of, found).phase == phase


def test_conditions_come_true_in_order() -> None:
    assert conditions(statuses.of(INIT, Actual())) == ["PodScheduled"]
    assert conditions(statuses.of(TWO, actual())) == ["PodScheduled", "PodReadyToStartContainers", "Initialized"]
    made = actual(status("i", EXITED), status("a", RUNNING))
    assert conditions(statuses.of(INIT, made)) == [
        "PodScheduled",
        "PodReadyToStartContainers",
        "Initialized",
        "ContainersReady",
        "Ready",
    ]
    assert "Ready" not in conditions(statuses.of(TWO, actual(status("a", RUNNING))))


def test_before_anything_is_known_containers_are_being_created() -> None:
    assert statuses.of(TWO, actual()).container_statuses[0].state.waiting == Waiting("ContainerCreating")
    assert statuses.of(INIT, actual()).container_statuses[0].state.waiting == Waiting("PodInitializing")
    assert statuses.of(INIT, actual()).init_container_statuses[0].state.waiting == Waiting("ContainerCreating")


def test_why_a_container_waits_is_the_workers_word() -> None:
    why = Waiting("ImagePullBackOff", "no route")
    found = statuses.of(TWO, actual(status("b", EXITED, 1, attempt=2)), {"a": why, "b": Waiting("CrashLoopBackOff")})
    first, second = found.container_statuses
    assert first.state.waiting == why
    assert second.state.waiting == Waiting("CrashLoopBackOff")
    assert second.last_state.terminated is not None
    assert second.last_state.terminated.exit_code == 1
    assert second.restart_count == 2


def test_what_runs_does_not_wait_whatever_was_said_before() -> None:
    found = statuses.of(TWO, actual(status("a", RUNNING)), {"a": Waiting("CrashLoopBackOff")}).container_statuses[0]
    assert found.state.running is not None
    assert found.state.running.started_at == "1970-01-01T00:00:02Z"
    assert found.ready
    assert found.started


def test_the_pods_own_trouble_is_its_reason() -> None:
    found = statuses.of(TWO, Actual(), {"": Waiting("CreatePodSandboxError", "no address left")})
    assert (found.reason, found.message) == ("CreatePodSandboxError", "no address left")


@pytest.mark.parametrize(("code", "given", "shown"), [
    (0, "", "Completed"),
    (1, "", "Error"),
    (137, "OOMKilled", "OOMKilled"),
])  # fmt: skip
def test_how_a_container_ended(code: int, given: str, shown: str) -> None:
    ended = status("a", EXITED, code, ended_s=3)
    ended.reason = given
    state = statuses.of(NEVER, actual(ended)).container_statuses[0].state.terminated
    assert state is not None
    assert (state.exit_code, state.reason, state.finished_at) == (code, shown, "1970-01-01T00:00:03Z")


def test_the_state_before_is_the_container_before() -> None:
    history = actual(status("a", RUNNING, attempt=1), status("a", EXITED, 3, ended_s=1))
    found = statuses.of(TWO, history).container_statuses[0]
    assert found.state.running
    assert found.last_state.terminated is not None
    assert found.last_state.terminated.exit_code == 3


def test_it_is_written_in_kubernetes_words() -> None:
    found = msgspec.to_builtins(statuses.of(TWO, actual(status("a", RUNNING), status("b", RUNNING))))
    assert found["podIP"] == "10.0.0.2"
    assert found["qosClass"] == "BestEffort"
    assert found["startTime"] == "1970-01-01T00:00:01Z"
    assert found["containerStatuses"][0] == {
        "name": "a",
        "state": {"running": {"startedAt": "1970-01-01T00:00:02Z"}},
        "lastState": {},
        "ready": True,
        "started": True,
        "restartCount": 0,
        "image": "busybox:1",
        "imageID": "",
        "containerID": "a-0",
    }
