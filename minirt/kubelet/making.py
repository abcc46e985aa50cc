"""Making a pod's sandbox and its containers, and remembering why one could not be made.

    sandbox    images ─▶ volumes ─▶ RunPodSandbox ─▶ /etc/hosts
    container  image ─▶ configuration ─▶ CreateContainer ─▶ StartContainer

Source: https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/kuberuntime/kuberuntime_container.go
"""

import time
from collections.abc import Callable

from minirt import journal
from minirt.crimessages import api_pb2 as cri
from minirt.engine import idranges
from minirt.engine.podface import PodFace
from minirt.errors import InvalidInput, MinirtError
from minirt.kubelet import names, pods, requests, volumes
from minirt.kubelet.backoff import Backoff
from minirt.kubelet.decide import Start, Wait
from minirt.kubelet.events import Event, Observer, Reason
from minirt.kubelet.images import Images, NoImage
from minirt.kubelet.manifest import Pod
from minirt.kubelet.node import Node
from minirt.kubelet.pods import Actual
from minirt.kubelet.requests import PulledImage
from minirt.kubelet.status import Waiting, pod_ip

POD = ""
"""The key of what concerns the whole pod, beside its containers' names."""
_NS = 1_000_000_000


class Maker:
    """Makes what ``decide`` wants made. ``failed_ns`` and ``waiting`` say, by container, since when and why it waits.

    With ``fail_fast`` an error is raised; without it is noted, told, and the thing tried again after its back-off.
    """

    def __init__(
        self,
        face: PodFace,
        pod: Pod,
        node: Node,
        backoff: Backoff,
        observer: Observer,
        *,
        changed: Callable[[], None],
        fail_fast: bool,
    ) -> None:
        self._face = face
        self._pod = pod
        self._node = node
        self._backoff = backoff
        self._observer = observer
        self.fail_fast = fail_fast
        self._images = Images(face, pod, backoff, observer, changed)
        self.failed_ns: dict[str, int] = {}
        self.waiting: dict[str, Waiting] = {}

    def make_sandbox(self, attempt: int) -> bool:
        """Make the sandbox; return False when it has to wait, for its images or after a failure."""
        if self._backoff.ready_at_ns(POD, self.failed_ns.get(POD, 0)) > time.time_ns() or not self._images_settled():
            return False
        try:
            volumes.prepare(self._pod)
        except MinirtError as error:
            return self._failed(POD, "FailedMount", "ContainerCreating", error)
        self._observer(Event("SandboxCreating"))
        try:
            self._run_sandbox(attempt)
        except MinirtError as error:
            return self._failed(POD, "FailedCreatePodSandBox", "CreatePodSandboxError", error)
        self._worked(POD)
        return True

    def _images_settled(self) -> bool:
        """Begin to pull every image; tell whether each is here, or is known not to be had for now."""
        now_ns = time.time_ns()
        images = [self._images.get(each, 0, now_ns) for each in self._pod.all_containers]
        for each in images:
            if isinstance(each, NoImage) and self.fail_fast:
                raise each.error
        return None not in images

    def _run_sandbox(self, attempt: int) -> None:
        config = requests.sandbox_config(self._pod, self._node, attempt, self._ids())
        handler = self._pod.spec.runtime_class_name  # there are no RuntimeClass objects here: a class is its handler
        self._face.RunPodSandbox(cri.RunPodSandboxRequest(config=config, runtime_handler=handler))
        actual = self._furnish()
        self._observer(Event("SandboxReady", ", ".join(pod_ip(self._pod, actual, self._node))))

    def _ids(self) -> idranges.Ids | None:
        """Return the ids of the pod's user namespace, always the same; None: it has the host's."""
        return None if self._pod.spec.host_users else idranges.of_pod(self._pod.uid)

    def take_over(self) -> None:
        """Make sure of what the containers of a sandbox mount that another worker made."""
        try:
            self._furnish()
        except MinirtError as error:
            self._failed(POD, "FailedMount", "ContainerCreating", error)

    def _furnish(self) -> Actual:
        actual = pods.look(self._face, self._pod.uid)
        volumes.prepare(self._pod)
        hosts = names.hosts_file(self._pod, pod_ip(self._pod, actual, self._node), self._node)
        volumes.write_hosts(self._pod, hosts)
        return actual

    def start(self, start: Start, actual: Actual) -> bool:
        """Make and start a container; return False when it has to wait."""
        images = self._images.get(start.container, start.attempt, time.time_ns())
        if images is None:
            return False
        if isinstance(images, NoImage):
            self._note_no_image(start.container.name, images)
            return False
        if start.failed_ns:
            self._backoff.tried(start.container.name, start.failed_ns, time.time_ns())
        with journal.because(self._pod.path_of(start.container)):
            return self._create_and_start(start, actual, images)

    def _note_no_image(self, name: str, image: NoImage) -> None:
        """Raise why there is no image, or note it and tell of it (of a pull that failed it has been told)."""
        if self.fail_fast:
            raise image.error
        before = self.waiting.get(name)
        self.waiting[name] = Waiting(image.reason, str(image.error))
        if before == self.waiting[name]:
            return
        if image.reason == "ErrImageNeverPull":
            self._observer(Event("Failed", str(image.error), name, warning=True))
        elif image.reason == "ImagePullBackOff":
            retry_s = (image.retry_at_ns - time.time_ns()) / _NS
            self._observer(Event("BackOff", "its image cannot be pulled", name, warning=True, retry_s=retry_s))

    def _create_and_start(self, start: Start, actual: Actual, images: dict[str, PulledImage]) -> bool:
        name, again = start.container.name, start.failed_ns != 0
        try:
            container_id = self._create(start, actual, images)
        except InvalidInput as error:
            return self._failed(name, "Failed", "CreateContainerConfigError", error, again=again)
        except MinirtError as error:
            return self._failed(name, "Failed", "CreateContainerError", error, again=again)
        self._observer(Event("Created", container_id, name))
        try:
            self._face.StartContainer(cri.StartContainerRequest(container_id=container_id))
        except MinirtError as error:
            self._note(name, "Failed", "RunContainerError", error, again=again)
            return True
        self._observer(Event("Started", container_id, name))
        self._worked(name)
        return True

    def _create(self, start: Start, actual: Actual, images: dict[str, PulledImage]) -> str:
        for useless in start.remove:
            self._face.RemoveContainer(cri.RemoveContainerRequest(container_id=useless))
        config = requests.container_config(
            self._pod,
            start.container,
            attempt=start.attempt,
            image=images[""],
            pod_ips=pod_ip(self._pod, actual, self._node),
            mounts=volumes.mounts(self._pod, start.container, {name: image.id for name, image in images.items()}),
            node=self._node,
            ids=self._ids(),
        )
        assert actual.sandbox is not None, "decide starts containers in a live sandbox only"
        sandbox = requests.sandbox_config(self._pod, self._node, actual.sandbox.metadata.attempt, self._ids())
        request = cri.CreateContainerRequest(pod_sandbox_id=actual.sandbox.id, config=config, sandbox_config=sandbox)
        return self._face.CreateContainer(request).container_id

    def note_back_off(self, wait: Wait) -> None:
        """Tell, once, that a container waits before it is started again."""
        name, retry_s = wait.container.name, (wait.until_ns - time.time_ns()) / _NS
        if name not in self.waiting:
            self.waiting[name] = Waiting("CrashLoopBackOff", f"started again in {retry_s:.0f} s")
            self._observer(Event("BackOff", "", name, warning=True, retry_s=retry_s))

    def _failed(self, key: str, event: Reason, reason: str, error: MinirtError, *, again: bool = False) -> bool:
        """Raise what went wrong, or note it; return False: nothing was done."""
        if self.fail_fast:
            raise error
        self._note(key, event, reason, error, again=again)
        return False

    def _note(self, key: str, event: Reason, reason: str, error: MinirtError, *, again: bool) -> None:
        now_ns = time.time_ns()
        if not again:
            self._backoff.tried(key, now_ns, now_ns)
        self.failed_ns[key] = now_ns
        self.waiting[key] = Waiting(reason, str(error))
        self._observer(Event(event, str(error), key, warning=True))

    def _worked(self, key: str) -> None:
        self.failed_ns.pop(key, None)
        self.waiting.pop(key, None)
