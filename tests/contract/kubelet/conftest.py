"""The same pods on containerd and on minirt: what a test sees there must hold before it counts here."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from minirt.cri.client import GrpcFace
from minirt.crimessages import api_pb2 as cri
from minirt.engine.face import EngineFace
from minirt.engine.podface import PodFace
from minirt.images.store import ImageStore
from minirt.kubelet import loading, logs, node, requests
from minirt.kubelet.backoff import Backoff
from minirt.kubelet.events import Event
from minirt.kubelet.manifest import Pod
from minirt.kubelet.worker import PodWorker
from minirt.shim.zygote import Zygote
from tests import requirements
from tests.command import Minirt
from tests.peers import daemon
from tests.peers.containerd import Containerd
from tests.peers.serve import Server

IMAGE = "localhost/busybox:latest"


@pytest.fixture(scope="session")
def containerd_face(containerd: Containerd) -> Iterator[PodFace]:
    """Containerd's face, after a first pod: its bridge stays, and is no leak of the first test's."""
    with GrpcFace(containerd.socket) as face:
        face.wait_until_ready()
        pod = loading.loads(yaml.safe_dump(manifest([container("first", "true")])), "first")
        request = cri.RunPodSandboxRequest(config=requests.sandbox_config(pod, node.here()))
        sandbox = face.RunPodSandbox(request).pod_sandbox_id
        face.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
        face.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
        yield face
    daemon.remove_cgroups(os.environ["MINIRT_CGROUP"])


@pytest.fixture(scope="session")
def minirt_face(busybox_archives: list[Path]) -> Iterator[PodFace]:
    """The engine in this process. It comes before containerd's face: its zygote is forked before gRPC has threads."""
    zygote = Zygote()
    for archive in busybox_archives:
        ImageStore().load(archive)
    yield EngineFace(zygote, best_effort=requirements.no_controllers() is not None)
    zygote.close()


@pytest.fixture(scope="session")
def served_face(tmp_path_factory: pytest.TempPathFactory, busybox_archives: list[Path]) -> Iterator[PodFace]:
    """The engine behind the socket of a ``minirt serve``."""
    directory = tmp_path_factory.mktemp("minirt-serve")
    minirt = Minirt(directory / "root", Path(os.environ["MINIRT_STATE"]) / "served")
    for archive in busybox_archives:
        minirt.output("image", "load", archive)
    server = Server(minirt, directory)
    with GrpcFace(server.socket) as face:
        face.wait_until_ready()
        yield face
    server.close()
    minirt("system", "prune")


@pytest.fixture(scope="session", params=["minirt", "served", "containerd"])
def face(request: pytest.FixtureRequest) -> PodFace:
    """A runtime that has localhost/busybox, and nothing else."""
    face: PodFace = request.getfixturevalue(f"{request.param}_face")
    return face


def container(name: str, script: str, **fields: Any) -> dict[str, Any]:
    """Return a container that runs a shell script in busybox."""
    command = ["sh", "-euc", script]
    return {"name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": command} | fields


def manifest(containers: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    """Return a pod manifest; its containers run once unless ``spec`` says otherwise."""
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 2, "containers": containers} | spec
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "test"}, "spec": spec}


class Running:
    """A worker in a thread of its own, and what it tells."""

    def __init__(self, face: PodFace, pod: Pod, **options: Any) -> None:
        self.face = face
        self.pod = pod
        self.events: list[Event] = []
        self._changed = threading.Condition()
        options = {"backoff": Backoff(0.1, 1), "poll_s": 0.05} | options
        self.worker = PodWorker(face, pod, observer=self._observe, **options)
        self._thread = ThreadPoolExecutor(1)
        self._outcome = self._thread.submit(self.worker.run)
        self._outcome.add_done_callback(lambda _: self._notify())

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _observe(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait_for(self, reason: str, container: str = "", count: int = 1) -> Event:
        """Wait until the worker has told of something ``count`` times; return the last."""

        def told() -> list[Event]:
            return [each for each in self.events if each.reason == reason and container in ("", each.container)]

        with self._changed:
            self._changed.wait_for(lambda: len(told()) >= count or self._outcome.done(), timeout=60)
        assert len(told()) >= count, f"never {reason} {container}: {self._outcome} after {self.events}"
        return told()[count - 1]

    def wait_log(self, container: str, text: str) -> None:
        """Wait until a container has written a line with ``text`` in it."""
        daemon.await_true(lambda: any(text in line for line in self.log(container)), f"{text!r} of {container}")

    def result(self) -> int:
        """Wait for the worker's end; return its exit code, or raise what it raised."""
        try:
            return self._outcome.result(timeout=30)
        except TimeoutError:
            said = {each.name: self.log(each.name)[-9:] for each in self.pod.all_containers}
            pytest.fail(f"the pod goes on after {self.events}, having said {said}", pytrace=False)

    def log(self, container: str, stream: str = "") -> list[str]:
        """Return the lines that a container has written so far, to both streams or to one."""
        lines = logs.read(requests.log_directory(self.pod), [container])
        return [line.text for line in lines if stream in ("", line.stream)]

    def told(self) -> list[tuple[str, str]]:
        """Return the reasons and containers of all events."""
        return [(event.reason, event.container) for event in self.events]

    def close(self) -> None:
        """End the worker and remove its pod."""
        self.worker.stop()
        self._thread.shutdown()
        self.worker.remove()


@pytest.fixture
def run(face: PodFace) -> Iterator[Callable[..., Running]]:
    """Run a manifest (a dict, a file, or a Pod) by a worker on the runtime; the pod is removed after the test."""
    running: list[Running] = []

    def begin(what: dict[str, Any] | Path | Pod, **options: Any) -> Running:
        if isinstance(what, dict):
            what = loading.loads(yaml.safe_dump(what), "test")
        running.append(Running(face, loading.load(what) if isinstance(what, Path) else what, **options))
        return running[-1]

    yield begin
    for each in running:
        each.close()
    daemon.remove_cgroups(os.environ["MINIRT_CGROUP"])
