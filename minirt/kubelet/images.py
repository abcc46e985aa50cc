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


class Wanted(Struct, frozen=True):
    """An image that a container stands on or mounts."""

    image: str
    policy: PullPolicy
    container: str


def wanted_by(pod: Pod, container: Container) -> dict[str, Wanted]:
    """Return the images that a container mounts by their volumes' names, and under "" the one that it stands on."""
    own = Wanted(container.image, pull_policy(container), container.name)
    mounted = pod.image_volumes(container)
    return {"": own} | {
        name: Wanted(one.reference, one.pull_policy or _default_policy(one.reference), container.name)
        for name, one in mounted.items()
    }


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

    def get(self, container: Container, attempt: int, now_ns: int) -> dict[str, PulledImage] | NoImage | None:
        """Return the images for this start of a container, by the names of the volumes that they are (its own: "").

        Or why there is none, or None while one is being pulled; all are pulled at once.
        """
        found = {name: self._get(wanted, attempt, now_ns) for name, wanted in wanted_by(self._pod, container).items()}
        for one in found.values():
            if isinstance(one, NoImage):
                return one
        here = {name: one for name, one in found.items() if isinstance(one, PulledImage)}
        return here if len(here) == len(found) else None

    def _get(self, wanted: Wanted, attempt: int, now_ns: int) -> PulledImage | NoImage | None:
        name, policy = wanted.image, wanted.policy
        key = (name, wanted.container, attempt) if policy == "Always" else (name, "", 0)
        if key in self._pulls:
            return self._finish(key, wanted, now_ns)
        if (policy != "Always" or key in self._fresh) and (image := self._look(name)):
            return image
        if policy == "Never":
            why = "it is not here, and its imagePullPolicy is Never"
            error = ImageError(f"use image {name}", why, f"minirt image pull {name}")
            return NoImage("ErrImageNeverPull", error)
        return self._begin(key, wanted, now_ns)

    def _begin(self, key: Key, wanted: Wanted, now_ns: int) -> NoImage | None:
        image = wanted.image
        if image in self._failed:
            failed_ns, error = self._failed[image]
            ready_ns = self._backoff.ready_at_ns(f"image {image}", failed_ns)
            if ready_ns > now_ns:
                return NoImage("ImagePullBackOff", error, ready_ns)
        self._observer(Event("Pulling", image, wanted.container))
        self._pulls[key] = _Pull(self._face, image, self._auth(wanted), self._changed)
        return None

    def _auth(self, wanted: Wanted) -> cri.AuthConfig | None:
        """Return what the pod's secrets have for an image; imported only where there are some."""
        if not self._pod.spec.image_pull_secrets:
            return None
        from minirt.kubelet.secrets import for_image

        def warn(error: MinirtError) -> None:
            self._observer(Event("FailedToRetrieveImagePullSecret", str(error), wanted.container, warning=True))

        return for_image(self._pod, wanted.image, warn)

    def _finish(self, key: Key, wanted: Wanted, now_ns: int) -> PulledImage | NoImage | None:
        pull, name = self._pulls[key], wanted.image
        if pull.under_way:
            return None
        del self._pulls[key]
        image = None if pull.error else self._look(name)
        if image:
            self._fresh.add(key)
            self._failed.pop(name, None)
            self._observer(Event("Pulled", f"{name} in {time.monotonic() - pull.begun_s:.1f} s", wanted.container))
            return image
        error = pull.error or ImageError(f"use image {name}", "it was pulled and is not here")
        self._failed[name] = (now_ns, error)
        self._backoff.tried(f"image {name}", now_ns, now_ns)
        self._observer(Event("Failed", str(error), wanted.container, warning=True))
        return NoImage("ErrImagePull", error, self._backoff.ready_at_ns(f"image {name}", now_ns))

    def _look(self, name: str) -> PulledImage | None:
        found = self._face.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=name))).image
        if not found.id:
            return None
        return PulledImage(found.id, found.uid.value if found.HasField("uid") else None, found.username)


def pull_policy(container: Container) -> PullPolicy:
    """Return a container's policy: where it has none, Always for a moving name (:latest or no tag)."""
    return container.image_pull_policy or _default_policy(container.image)


def _default_policy(image: str) -> PullPolicy:
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return "IfNotPresent" if digest or tag not in ("", "latest") else "Always"
