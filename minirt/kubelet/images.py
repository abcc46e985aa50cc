"""Getting a pod's images by their pull policies, each in a thread of its own, so that stopping need not wait for them.

    Always          asks the registry at every start of the container
    IfNotPresent    asks it only when no image of that name is here
    Never           never asks it

Source: https://kubernetes.io/docs/concepts/containers/images/#image-pull-policy
"""

import threading
import time
from collections.abc import Callable

from msgspec import Struct

from minirt.crimessages import api_pb2 as cri
from minirt.engine.podface import PodFace
from minirt.errors import ImageError, MinirtError
from minirt.kubelet.backoff import Backoff
from minirt.kubelet.events import Event, Observer
from minirt.kubelet.manifest import Container, Pod, PullPolicy
from minirt.kubelet.requests import PulledImage

Key = tuple[str, str, int]


class NoImage(Struct, frozen=True):
    """Why there is no image yet: one of Kubernetes' waiting reasons. Tried again at ``retry_at_ns`` (0: never)."""

    reason: str
    error: MinirtError
    retry_at_ns: int = 0


class _Pull:
    """A pull under way, or its outcome."""

    def __init__(self, face: PodFace, image: str, auth: cri.AuthConfig | None, done: Callable[[], None]) -> None:
        self.begun_s = time.monotonic()
        self.error: MinirtError | None = None
        self._face, self._done = face, done
        self._request = cri.PullImageRequest(image=cri.ImageSpec(image=image), auth=auth)
        self._thread = threading.Thread(target=self._run, name=f"pull {image}", daemon=True)
        self._thread.start()

    @property
    def under_way(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._face.PullImage(self._request)
        except MinirtError as error:
            self.error = error
        self._done()


class Images:
    """The images of one pod. ``changed`` is called from other threads when a pull has ended."""

    def __init__(
        self, face: PodFace, pod: Pod, backoff: Backoff, observer: Observer, changed: Callable[[], None]
    ) -> None:
        self._face = face
        self._pod = pod
        self._backoff = backoff
        self._observer = observer
        self._changed = changed
        self._pulls: dict[Key, _Pull] = {}
        self._failed: dict[str, tuple[int, MinirtError]] = {}
        self._fresh: set[Key] = set()

    def get(self, container: Container, attempt: int, now_ns: int) -> PulledImage | NoImage | None:
        """Return the image for this start of a container, or why there is none, or None while it is being pulled."""
        policy = pull_policy(container)
        key = (container.image, container.name, attempt) if policy == "Always" else (container.image, "", 0)
        if key in self._pulls:
            return self._finish(key, container, now_ns)
        if (policy != "Always" or key in self._fresh) and (image := self._look(container.image)):
            return image
        if policy == "Never":
            why = "it is not here, and its imagePullPolicy is Never"
            error = ImageError(f"use image {container.image}", why, f"minirt image pull {container.image}")
            return NoImage("ErrImageNeverPull", error)
        return self._begin(key, container, now_ns)

    def _begin(self, key: Key, container: Container, now_ns: int) -> NoImage | None:
        image = container.image
        if image in self._failed:
            failed_ns, error = self._failed[image]
            ready_ns = self._backoff.ready_at_ns(f"image {image}", failed_ns)
            if ready_ns > now_ns:
                return NoImage("ImagePullBackOff", error, ready_ns)
        self._observer(Event("Pulling", image, container.name))
        self._pulls[key] = _Pull(self._face, image, self._auth(container), self._changed)
        return None

    def _auth(self, container: Container) -> cri.AuthConfig | None:
        """Return what the pod's secrets have for an image; imported only where there are some."""
        if not self._pod.spec.image_pull_secrets:
            return None
        from minirt.kubelet.secrets import for_image

        def warn(error: MinirtError) -> None:
            self._observer(Event("FailedToRetrieveImagePullSecret", str(error), container.name, warning=True))

        return for_image(self._pod, container.image, warn)

    def _finish(self, key: Key, container: Container, now_ns: int) -> PulledImage | NoImage | None:
        pull, name = self._pulls[key], container.image
        if pull.under_way:
            return None
        del self._pulls[key]
        image = None if pull.error else self._look(name)
        if image:
            self._fresh.add(key)
            self._failed.pop(name, None)
            self._observer(Event("Pulled", f"{name} in {time.monotonic() - pull.begun_s:.1f} s", container.name))
            return image
        error = pull.error or ImageError(f"use image {name}", "it was pulled and is not here")
        self._failed[name] = (now_ns, error)
        self._backoff.tried(f"image {name}", now_ns, now_ns)
        self._observer(Event("Failed", str(error), container.name, warning=True))
        return NoImage("ErrImagePull", error, self._backoff.ready_at_ns(f"image {name}", now_ns))

    def _look(self, name: str) -> PulledImage | None:
        found = self._face.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=name))).image
        if not found.id:
            return None
        return PulledImage(found.id, found.uid.value if found.HasField("uid") else None, found.username)


def pull_policy(container: Container) -> PullPolicy:
    """Return a container's policy: where it has none, Always for a moving name (:latest or no tag)."""
    if container.image_pull_policy:
        return container.image_pull_policy
    name, _, digest = container.image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return "IfNotPresent" if digest or tag not in ("", "latest") else "Always"
