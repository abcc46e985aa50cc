"""The pod worker on a real runtime: order, restarts, ends, recovery."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from minirt import paths
from minirt.crimessages import api_pb2 as cri
from minirt.engine.podface import PodFace
from minirt.errors import ImageError, InvalidInput
from minirt.kubelet import ending, pods
from minirt.kubelet.backoff import Backoff
from minirt.kubelet.worker import STOPPED_EXIT_CODE
from tests.contract.kubelet.conftest import Running, container, manifest
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer]
Run = Callable[..., Running]

WORK = {"volumes": [{"name": "work", "emptyDir": {}}]}
MOUNT = {"volumeMounts": [{"name": "work", "mountPath": "/work"}]}


def test_a_pod_that_succeeds_ends_with_0_and_can_be_removed(run: Run, face: PodFace) -> None:
    pod = run(manifest([container("main", "echo hello")]))
    assert pod.result() == 0
    assert pod.log("main") == ["hello"]
    assert pod.told() == [
        ("SandboxCreating", ""),
        ("SandboxReady", ""),
        ("Created", "main"),
        ("Started", "main"),
        ("Exited", "main"),
    ]
    assert pod.worker.status().phase == "Succeeded"
    pod.worker.remove()
    assert pods.look(face, pod.pod.uid) == pods.Actual()
    assert not paths.volumes_dir(pod.pod.uid).exists()


def test_the_exit_code_is_that_of_the_first_container_that_failed(run: Run) -> None:
    late = container("late", "until [ -e /work/go ]; do sleep 0.05; done; exit 3", **MOUNT)
    first = container("first", "touch /work/go; exit 7", **MOUNT)
    pod = run(manifest([late, first, container("good", "true")], **WORK))
    assert pod.result() in (7, 3)
    ends = sorted(pods.look(pod.face, pod.pod.uid).current, key=lambda each: each.finished_at)
    assert pod.result() == next(each.exit_code for each in ends if each.exit_code)
    status = pod.worker.status()
    assert status.phase == "Failed"
    assert [each.state.terminated.exit_code for each in status.container_statuses if each.state.terminated] == [3, 7, 0]


def test_init_containers_run_in_order_before_the_others(run: Run) -> None:
    init = [container(name, f"echo {name} >> /work/order", **MOUNT) for name in ("one", "two")]
    pod = run(manifest([container("main", "cat /work/order", **MOUNT)], initContainers=init, **WORK))
    assert pod.result() == 0
    assert pod.log("main") == ["one", "two"]
    started = [name for reason, name in pod.told() if reason == "Started"]
    assert started == ["one", "two", "main"]


def test_a_failed_init_container_fails_the_pod_and_nothing_else_starts(run: Run) -> None:
    pod = run(manifest([container("main", "true")], initContainers=[container("init", "exit 4")]))
    assert pod.result() == 4
    assert ("Created", "main") not in pod.told()
    status = pod.worker.status()
    assert status.phase == "Failed"
    assert {each.type: each.status for each in status.conditions}["Initialized"] == "False"
    assert status.container_statuses[0].state.waiting.reason == "PodInitializing"


def test_on_failure_restarts_until_success_with_growing_pauses(run: Run) -> None:
    count = "echo x >> /work/runs; echo run $(wc -l < /work/runs); [ $(wc -l < /work/runs) -ge 4 ]"
    pod = run(manifest([container("main", count, **MOUNT)], restartPolicy="OnFailure", **WORK))
    assert pod.result() == 0
    assert pod.log("main")[-1] == "run 4"
    assert [event.exit_code for event in pod.events if event.reason == "Exited"] == [1, 1, 1, 0]
    last, before = pods.look(pod.face, pod.pod.uid).of("main")
    assert last.created_at - before.finished_at >= 0.2e9, "twice the first pause"
    status = pod.worker.status().container_statuses[0]
    assert status.restart_count == 3
    assert status.last_state.terminated.exit_code == 1


def test_only_the_last_ended_container_of_a_name_is_kept(run: Run, face: PodFace) -> None:
    pod = run(manifest([container("main", "exit 1")], restartPolicy="Always"))
    pod.wait_for("Exited", "main", count=4)
    pod.worker.stop()
    pod.result()
    assert len(pods.look(face, pod.pod.uid).current) == 2


def test_crash_loop_is_what_the_status_says_while_it_waits(run: Run) -> None:
    pod = run(manifest([container("main", "exit 1")], restartPolicy="Always"), backoff=Backoff(60, 60))
    pod.wait_for("BackOff", "main")
    status = pod.worker.status().container_statuses[0]
    assert status.state.waiting.reason == "CrashLoopBackOff"
    assert status.last_state.terminated.exit_code == 1
    assert pod.worker.status().phase == "Running"
    pod.worker.stop()
    assert pod.result() == STOPPED_EXIT_CODE


def test_stop_gives_every_container_its_signal_and_its_grace(run: Run, face: PodFace) -> None:
    polite = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    stubborn = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    pod = run(manifest([container("polite", polite), container("stubborn", stubborn)], restartPolicy="Always"))
    for name in ("polite", "stubborn"):
        pod.wait_log(name, "ready")
    pod.worker.stop()
    assert pod.result() == STOPPED_EXIT_CODE
    assert pod.log("polite") == ["ready", "bye"]
    assert {event.container: event.exit_code for event in pod.events if event.reason == "Exited"} == {
        "polite": 0,
        "stubborn": 137,
    }
    assert not pods.look(face, pod.pod.uid).ready


def test_a_new_worker_goes_on_where_the_old_one_was_lost(run: Run, face: PodFace) -> None:
    wait = "echo begun; until [ -e /work/go ]; do sleep 0.05; done; exit 5"
    first = run(manifest([container("main", wait, **MOUNT)], **WORK))
    first.wait_log("main", "begun")
    before = pods.look(face, first.pod.uid)

    found = pods.find(face, "test")
    assert found == first.pod, "the manifest is kept by the runtime"
    second = run(found)
    (paths.volumes_dir(found.uid) / "work" / "go").touch()
    assert second.result() == 5
    assert second.told() == [("Exited", "main")]
    assert [each.id for each in pods.look(face, found.uid).current] == [each.id for each in before.current]


def test_a_sandbox_that_dies_is_replaced(run: Run, face: PodFace) -> None:
    pod = run(manifest([container("main", "echo up; sleep 1000")], restartPolicy="Always"))
    pod.wait_for("Started", "main")
    first = pods.look(face, pod.pod.uid).sandbox
    face.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=first.id))
    pod.wait_for("SandboxChanged")
    pod.wait_for("Started", "main", count=2)
    second = pods.look(face, pod.pod.uid).sandbox
    assert second.id != first.id
    assert second.metadata.attempt == 1
    await_true(lambda: len(pods.look(face, pod.pod.uid).sandboxes) == 1, "the old sandbox is removed")


def test_a_sandbox_that_cannot_be_replaced_yet_is_not_lost(run: Run, face: PodFace, tmp_path: Path) -> None:
    volumes = [{"name": "data", "hostPath": {"path": f"{tmp_path}/data", "type": "Directory"}}]
    (tmp_path / "data").mkdir()
    pod = run(manifest([container("main", "sleep 1000")], restartPolicy="Always", volumes=volumes))
    pod.wait_for("Started", "main")
    (tmp_path / "data").rmdir()
    face.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=pods.look(face, pod.pod.uid).sandbox.id))
    pod.wait_for("FailedMount", count=2)
    assert pod.worker.status().reason == "ContainerCreating"
    (tmp_path / "data").mkdir()
    pod.wait_for("Started", "main", count=2)
    assert [reason for reason, _ in pod.told()].count("SandboxChanged") == 1


def test_containers_reach_each_other_on_localhost(run: Run) -> None:
    serve = "echo hello > /work/index.html; httpd -f -p 8080 -h /work & until [ -e /work/done ]; do sleep 0.05; done"
    server = container("server", serve, **MOUNT)
    client = container(
        "client",
        "until wget -qO- http://localhost:8080/; do sleep 0.05; done; touch /work/done",
        **MOUNT,
    )
    pod = run(manifest([server, client], **WORK))
    assert pod.result() == 0
    assert "hello" in pod.log("client")


def test_an_image_that_may_not_be_pulled_ends_an_eager_run(run: Run) -> None:
    pod = run(manifest([container("main", "true", image="localhost/absent:1")]), fail_fast=True)
    with pytest.raises(ImageError, match="imagePullPolicy is Never"):
        pod.result()
    assert pod.worker.status().phase == "Pending"


def test_an_image_that_cannot_be_pulled_is_tried_again(run: Run) -> None:
    unreachable = "127.0.0.1:1/absent:1"
    pod = run(manifest([container("main", "true", image=unreachable, imagePullPolicy="Always")]))
    assert unreachable in pod.wait_for("Pulling", count=2).message
    assert pod.wait_for("Failed").warning
    await_true(
        lambda: _waiting(pod) in ("ErrImagePull", "ImagePullBackOff"),
        "the reason that the container waits",
    )


def test_stopping_does_not_wait_for_a_pull(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = f"127.0.0.1:{silent.getsockname()[1]}/slow:1"
        pod = run(manifest([container("main", "true", image=image, imagePullPolicy="Always")]))
        pod.wait_for("Pulling")
        pod.worker.stop()
        assert pod.result() == STOPPED_EXIT_CODE


def test_an_absent_image_that_may_not_be_pulled_is_told_of_once(run: Run) -> None:
    pod = run(manifest([container("main", "true", image="localhost/absent:1"), container("other", "true")]))
    pod.wait_for("Exited", "other")
    assert [event.container for event in pod.events if event.reason == "Failed"] == ["main"]
    assert _waiting(pod) == "ErrImageNeverPull"


def _waiting(pod: Running) -> str:
    waiting = pod.worker.status().container_statuses[0].state.waiting
    return waiting.reason if waiting else ""


def test_a_container_that_must_not_be_root_is_not_made(run: Run) -> None:
    spec = manifest([container("main", "id", securityContext={"runAsNonRoot": True})])
    with pytest.raises(InvalidInput, match="would run as root"):
        run(spec, fail_fast=True).result()
    pod = run(spec)
    pod.wait_for("Failed", "main")
    assert _waiting(pod) == "CreateContainerConfigError"


def test_a_command_that_is_not_there_is_a_failed_container(run: Run) -> None:
    pod = run(manifest([container("main", "", command=["/no/such/command"])]))
    assert pod.result() in (127, 128), "containerd says 128, docker and minirt 127"
    assert "no such file" in pod.wait_for("Failed", "main").message.lower()


def test_a_pod_removed_by_somebody_else_leaves_nothing(run: Run, face: PodFace) -> None:
    pod = run(manifest([container("main", "sleep 1000")], restartPolicy="Always", **WORK))
    pod.wait_for("Started", "main")
    pod.worker.stop()
    pod.result()
    ending.remove(face, pod.pod.uid)
    ending.remove(face, pod.pod.uid)
    assert not paths.volumes_dir(pod.pod.uid).exists()


EXAMPLES = {
    "hello": "fetch 3: Hello, world, from hello",
    "init-containers": "begun at ",
    "shared-processes": "told to stop",
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_succeed(run: Run, example: str) -> None:
    pod = run(Path(__file__).parents[3] / f"examples/{example}.yaml", fail_fast=True)
    code = pod.result()
    said = [line for each in pod.pod.all_containers for line in pod.log(each.name)]
    assert code == 0, said
    assert any(EXAMPLES[example] in line for line in said), said
