"""What there is of a pod, as the runtime tells it. Nothing is remembered between two looks."""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from minirt.crimessages import api_pb2 as cri
from minirt.engine.podface import PodFace
from minirt.errors import Conflict, NotFound
from minirt.kubelet import loading, requests
from minirt.kubelet.manifest import Pod

READY = cri.PodSandboxState.SANDBOX_READY
CREATED = cri.ContainerState.CONTAINER_CREATED
RUNNING = cri.ContainerState.CONTAINER_RUNNING


class Actual(Struct, frozen=True):
    """A pod's sandboxes, the newest first, and for each of them its containers, the newest first."""

    sandboxes: tuple[cri.PodSandboxStatus, ...] = ()
    containers: tuple[tuple[cri.ContainerStatus, ...], ...] = ()

    @property
    def sandbox(self) -> cri.PodSandboxStatus | None:
        """Return the newest sandbox: the only one that can be alive."""
        return self.sandboxes[0] if self.sandboxes else None

    @property
    def ready(self) -> bool:
        """Tell whether there is a live sandbox."""
        return self.sandbox is not None and self.sandbox.state == READY

    @property
    def ips(self) -> tuple[str, ...]:
        """Return the pod's addresses."""
        if self.sandbox is None or not self.sandbox.network.ip:
            return ()
        network = self.sandbox.network
        return (network.ip, *(each.ip for each in network.additional_ips))

    @property
    def current(self) -> tuple[cri.ContainerStatus, ...]:
        """Return the containers of the newest sandbox."""
        return self.containers[0] if self.containers else ()

    def of(self, name: str) -> list[cri.ContainerStatus]:
        """Return every container of this name, the newest first."""
        found = [each for group in self.containers for each in group if each.metadata.name == name]
        return sorted(found, key=lambda each: each.metadata.attempt, reverse=True)

    def last(self, name: str) -> cri.ContainerStatus | None:
        """Return the newest container of this name."""
        return next(iter(self.of(name)), None)

    def is_current(self, container: cri.ContainerStatus | None) -> bool:
        """Tell whether a container belongs to the newest sandbox."""
        return container is not None and any(each.id == container.id for each in self.current)


def exited(container: cri.ContainerStatus | None) -> bool:
    """Tell whether a container has run and does so no more."""
    return container is not None and container.state not in (CREATED, RUNNING)


def running(container: cri.ContainerStatus | None) -> bool:
    """Tell whether a container runs."""
    return container is not None and container.state == RUNNING


def look(face: PodFace, uid: str) -> Actual:
    """Return what there is of the pod with this uid."""
    label = {requests.POD_UID: uid}
    of_pod = cri.PodSandboxFilter(label_selector=label)
    sandboxes = face.ListPodSandbox(cri.ListPodSandboxRequest(filter=of_pod)).items
    in_pod = cri.ContainerFilter(label_selector=label)
    containers = face.ListContainers(cri.ListContainersRequest(filter=in_pod)).containers
    statuses = [status for each in sandboxes if (status := _sandbox(face, each.id))]
    statuses.sort(key=lambda each: (each.metadata.attempt, each.created_at), reverse=True)
    return Actual(tuple(statuses), tuple(_containers(face, containers, status.id) for status in statuses))


def _sandbox(face: PodFace, sandbox_id: str) -> cri.PodSandboxStatus | None:
    """Return a sandbox's status; None if it went while we looked."""
    try:
        return face.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id)).status
    except NotFound:
        return None


def _containers(face: PodFace, listed: Iterable[cri.Container], sandbox_id: str) -> tuple[cri.ContainerStatus, ...]:
    mine = (each.id for each in listed if each.pod_sandbox_id == sandbox_id)
    found = [status for each in mine if (status := _container(face, each))]
    return tuple(sorted(found, key=lambda each: (each.created_at, each.metadata.attempt), reverse=True))


def _container(face: PodFace, container_id: str) -> cri.ContainerStatus | None:
    """Return a container's status; None if it went while we looked."""
    try:
        return face.ContainerStatus(cri.ContainerStatusRequest(container_id=container_id)).status
    except NotFound:
        return None


def known(face: PodFace) -> Iterator[Pod]:
    """Yield every pod that minirt's kubelet made in this runtime, from the manifest that its sandbox keeps."""
    seen: set[str] = set()
    sandboxes = face.ListPodSandbox(cri.ListPodSandboxRequest()).items
    for sandbox in sorted(sandboxes, key=lambda each: each.created_at):
        uid = sandbox.labels.get(requests.POD_UID, "")
        if uid not in seen and requests.MANIFEST in sandbox.annotations:
            seen.add(uid)
            yield loading.loads(sandbox.annotations[requests.MANIFEST], f"the manifest of sandbox {sandbox.id}")


def find(face: PodFace, name: str, namespace: str = "") -> Pod:
    """Return the pod of this name (or uid); without ``namespace`` it may be in any.

    Raises:
        NotFound: there is none.
        Conflict: there are several.
    """
    pods = list(known(face))
    found = [pod for pod in pods if _is_called(pod, name, namespace)]
    if len(found) > 1:
        where = ", ".join(pod.metadata.namespace for pod in found)
        raise Conflict(f"find pod {name}", f"there are several, in the namespaces {where}", "name the namespace")
    if not found:
        there = ", ".join(sorted(pod.metadata.name for pod in pods)) or "none"
        raise NotFound(f"find pod {name}", "there is no such pod", f"there is: {there}")
    return found[0]


def _is_called(pod: Pod, name: str, namespace: str) -> bool:
    return pod.uid == name or (pod.metadata.name == name and namespace in ("", pod.metadata.namespace))
