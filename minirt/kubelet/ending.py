"""The end of a pod: its containers stopped in parallel within their grace, then its sandboxes and its volumes gone."""

import time

from minirt.crimessages import api_pb2 as cri
from minirt.engine.podface import PodFace
from minirt.errors import MinirtError
from minirt.kubelet import pods, volumes
from minirt.kubelet.pods import Actual

MIN_GRACE_S = 2
"""A container gets at least this long, whatever its manifest says."""
STOP_PAUSES_S = (0.1, 0.5)
"""How long to wait before a sandbox's stop is tried again."""


def stop(face: PodFace, actual: Actual, grace_s: int) -> None:
    """Stop a pod: every running container at the same time, with ``grace_s`` seconds for each, then the sandboxes.

    Raises:
        MinirtError: the runtime could not stop one; the others have been stopped all the same.
    """
    from concurrent.futures import ThreadPoolExecutor

    alive = [each.id for group in actual.containers for each in group if pods.running(each)]
    grace_s = max(grace_s, MIN_GRACE_S)
    if alive:
        with ThreadPoolExecutor(len(alive)) as pool:
            calls = [pool.submit(_stop_container, face, each, grace_s) for each in alive]
        for call in calls:
            call.result()
    for sandbox in actual.sandboxes:
        stop_sandbox(face, sandbox.id)


def stop_sandbox(face: PodFace, sandbox_id: str) -> None:
    """Stop a sandbox, trying again: taking a network down fails where somebody else takes it down at the same time.

    Raises:
        MinirtError: the runtime refused, the last time too.
    """
    request = cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)
    for pause_s in STOP_PAUSES_S:
        try:
            face.StopPodSandbox(request)
        except MinirtError:
            time.sleep(pause_s)
        else:
            return
    face.StopPodSandbox(request)


def _stop_container(face: PodFace, container_id: str, grace_s: int) -> None:
    face.StopContainer(cri.StopContainerRequest(container_id=container_id, timeout=grace_s))


def remove(face: PodFace, uid: str) -> None:
    """Remove a pod, running or not, with its volumes. What is gone already is no error; its logs stay.

    Raises:
        MinirtError: the runtime or the kernel refused; calling it again goes on from there.
    """
    actual = pods.look(face, uid)
    for sandbox in actual.sandboxes:
        stop_sandbox(face, sandbox.id)
        face.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox.id))
    volumes.remove(uid)
