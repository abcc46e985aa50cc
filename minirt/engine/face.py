"""The engine's pod face: the CRI's RPCs in this process (podface.py), on the lower floor's sandboxes and containers."""

import os
import time

from msgspec import structs

import minirt
from minirt.cgroups import missing
from minirt.cgroups import tree as cgroup_tree
from minirt.crimessages import api_pb2 as cri
from minirt.engine import capture, containers, messages, sandboxes, store
from minirt.engine.events import EventStream
from minirt.engine.records import ContainerRecord, SandboxRecord
from minirt.errors import Conflict, MinirtError, NotFound
from minirt.images.store import ImageStore
from minirt.shim.zygote import Zygote

EVENTS = {
    "created": cri.ContainerEventType.CONTAINER_CREATED_EVENT,
    "running": cri.ContainerEventType.CONTAINER_STARTED_EVENT,
    "exited": cri.ContainerEventType.CONTAINER_STOPPED_EVENT,
}


class EngineFace:
    """A runtime for one owner. ``zygote`` makes sandboxes (None: it makes none), and is older than any thread here."""

    def __init__(
        self, zygote: Zygote | None, owner: str = "cli", *, trace: bool = False, best_effort: bool = False
    ) -> None:
        self._zygote = zygote
        self._owner = owner
        self._trace = trace
        self._best_effort = best_effort
        self._streams: list[EventStream] = []

    def Version(self, request: cri.VersionRequest) -> cri.VersionResponse:
        """Name the runtime."""
        return cri.VersionResponse(
            version="0.1.0",
            runtime_name="minirt",
            runtime_version=minirt.__version__,
            runtime_api_version="v1",
        )

    def Status(self, request: cri.StatusRequest) -> cri.StatusResponse:
        """Say that it is ready: who has this face has the engine in its own process."""
        ready = [cri.RuntimeCondition(type=name, status=True) for name in ("RuntimeReady", "NetworkReady")]
        return cri.StatusResponse(status=cri.RuntimeStatus(conditions=ready))

    # --- sandboxes

    def RunPodSandbox(self, request: cri.RunPodSandboxRequest) -> cri.RunPodSandboxResponse:
        """Make a sandbox.

        Raises:
            NotFound: the runtime handler is unknown.
            ControllerMissing: a limit that this machine cannot keep.
        """
        if request.runtime_handler not in {"", "minirt"}:
            raise NotFound(f"use the runtime handler {request.runtime_handler!r}", "there is only minirt")
        if self._zygote is None:
            raise MinirtError("make a sandbox", "this face has no zygote", "it only looks after what exists")
        config = messages.sandbox_config(request.config, self._owner, trace=self._trace)
        if not self._best_effort:
            missing.check(config.resources, config.name)
        kept, _ = missing.without_missing(config.resources, config.name)
        config = structs.replace(config, resources=kept, cgroup=_in_our_tree(config.cgroup))
        record = sandboxes.run(config, self._zygote)
        for stream in self._streams:
            stream.follow(record.id)
        return cri.RunPodSandboxResponse(pod_sandbox_id=record.id)

    def StopPodSandbox(self, request: cri.StopPodSandboxRequest) -> cri.StopPodSandboxResponse:
        """Stop a sandbox; an unknown one is fine."""
        sandboxes.stop(request.pod_sandbox_id)
        return cri.StopPodSandboxResponse()

    def RemovePodSandbox(self, request: cri.RemovePodSandboxRequest) -> cri.RemovePodSandboxResponse:
        """Remove a sandbox; an unknown one is fine."""
        sandboxes.remove(request.pod_sandbox_id)
        return cri.RemovePodSandboxResponse()

    def PodSandboxStatus(self, request: cri.PodSandboxStatusRequest) -> cri.PodSandboxStatusResponse:
        """Return a sandbox's status. Raises NotFound."""
        record = store.sandbox(request.pod_sandbox_id)
        return cri.PodSandboxStatusResponse(status=messages.sandbox_status(record, sandboxes.is_ready(record)))

    def ListPodSandbox(self, request: cri.ListPodSandboxRequest) -> cri.ListPodSandboxResponse:
        """List this owner's sandboxes; a half-made one is none yet."""
        wanted = request.filter
        items = [
            messages.sandbox_item(record, sandboxes.is_ready(record))
            for record in self._sandboxes()
            if wanted.id in {"", record.id} and _has(record.config.labels, wanted.label_selector)
        ]
        if wanted.HasField("state"):
            items = [item for item in items if item.state == wanted.state.state]
        return cri.ListPodSandboxResponse(items=items)

    def _sandboxes(self) -> list[SandboxRecord]:
        return [one for one in store.sandboxes(self._owner) if one.state != "creating" and not one.config.single]

    # --- containers

    def CreateContainer(self, request: cri.CreateContainerRequest) -> cri.CreateContainerResponse:
        """Make a container.

        Raises:
            Conflict: the sandbox is stopped, or has a container of this name and attempt.
            NotFound: the image is not here.
            ControllerMissing: a limit that this machine cannot keep.
        """
        sandbox = store.sandbox(request.pod_sandbox_id)
        directory = sandbox.config.log_directory or request.sandbox_config.log_directory
        config = messages.container_config(request.config, directory)
        subject = f"{sandbox.config.name}/{config.name}"
        if not self._best_effort:
            missing.check(config.resources, subject)
        kept, _ = missing.without_missing(config.resources, subject)
        image = ImageStore().get(request.config.image.image)
        with store.locked(sandbox.id):
            for other in store.containers(sandbox.id):
                if (other.config.name, other.config.attempt) == (config.name, config.attempt):
                    raise Conflict(f"create {subject}", f"attempt {config.attempt} exists", "remove it first")
            record = containers.create(
                store.sandbox(sandbox.id), structs.replace(config, resources=kept), image, sandboxes.new_id()
            )
        return cri.CreateContainerResponse(container_id=record.id)

    def StartContainer(self, request: cri.StartContainerRequest) -> cri.StartContainerResponse:
        """Start a container."""
        containers.start(store.container(request.container_id))
        return cri.StartContainerResponse()

    def StopContainer(self, request: cri.StopContainerRequest) -> cri.StopContainerResponse:
        """Stop a container; an unknown one is fine."""
        record = _container_or_none(request.container_id)
        if record:
            containers.stop(record, request.timeout)
        return cri.StopContainerResponse()

    def RemoveContainer(self, request: cri.RemoveContainerRequest) -> cri.RemoveContainerResponse:
        """Remove a container, killing it if it runs; an unknown one is fine."""
        record = _container_or_none(request.container_id)
        if record:
            containers.remove(record, force=True)
        return cri.RemoveContainerResponse()

    def ListContainers(self, request: cri.ListContainersRequest) -> cri.ListContainersResponse:
        """List this owner's containers."""
        wanted = request.filter
        found = [
            messages.container_item(record, containers.status(record))
            for record in store.containers(wanted.pod_sandbox_id or None, self._owner)
            if record.id != record.sandbox_id
            and wanted.id in {"", record.id}
            and _has(record.config.labels, wanted.label_selector)
        ]
        if wanted.HasField("state"):
            found = [item for item in found if item.state == wanted.state.state]
        return cri.ListContainersResponse(containers=found)

    def ContainerStatus(self, request: cri.ContainerStatusRequest) -> cri.ContainerStatusResponse:
        """Return a container's status. Raises NotFound."""
        record = store.container(request.container_id)
        return cri.ContainerStatusResponse(status=messages.container_status(record, containers.status(record)))

    def ExecSync(self, request: cri.ExecSyncRequest) -> cri.ExecSyncResponse:
        """Run a command in a container.

        Raises:
            MinirtError: it ran out of time, and was killed.
        """
        record = store.container(request.container_id)
        found = capture.run(record, tuple(request.cmd), request.timeout)
        if found.exit_code is None:
            raise MinirtError(
                f"exec in {record.config.name}", f"it took longer than {request.timeout} s, and was killed"
            )
        return cri.ExecSyncResponse(stdout=found.stdout, stderr=found.stderr, exit_code=found.exit_code)

    def GetContainerEvents(self, request: cri.GetEventsRequest) -> "ContainerEvents":
        """Return what happens to this owner's containers from now on, until it is cancelled."""
        return ContainerEvents(EventStream(self._owner), self._streams)

    # --- images

    def PullImage(self, request: cri.PullImageRequest) -> cri.PullImageResponse:
        """Fetch an image."""
        credentials = messages.credentials(request.auth)
        return cri.PullImageResponse(image_ref=ImageStore().pull(request.image.image, credentials=credentials).id)

    def ImageStatus(self, request: cri.ImageStatusRequest) -> cri.ImageStatusResponse:
        """Return an image, or nothing."""
        try:
            return cri.ImageStatusResponse(image=messages.image(ImageStore().get(request.image.image)))
        except NotFound:
            return cri.ImageStatusResponse()

    def ListImages(self, request: cri.ListImagesRequest) -> cri.ListImagesResponse:
        """List images."""
        wanted = request.filter.image.image
        if wanted:
            return cri.ListImagesResponse(images=[found for found in [self._image(wanted)] if found])
        return cri.ListImagesResponse(images=[messages.image(one) for one in ImageStore().list()])

    def _image(self, name: str) -> cri.Image | None:
        found = self.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=name)))
        return found.image if found.HasField("image") else None

    def RemoveImage(self, request: cri.RemoveImageRequest) -> cri.RemoveImageResponse:
        """Remove an image with all its names; an unknown one is fine."""
        images = ImageStore()
        try:
            images.remove(images.get(request.image.image).id, force=True)
        except NotFound:
            return cri.RemoveImageResponse()
        return cri.RemoveImageResponse()


class ContainerEvents:
    """A stream of events; any thread may ``cancel`` it, and its reader sees the end."""

    def __init__(self, stream: EventStream, open_streams: list[EventStream]) -> None:
        self._stream = stream
        self._open_streams = open_streams
        self._events = stream.events()
        open_streams.append(stream)

    def __iter__(self) -> "ContainerEvents":
        return self

    def __next__(self) -> cri.ContainerEventResponse:
        container_id, state = next(self._events)
        return cri.ContainerEventResponse(
            container_id=container_id, container_event_type=EVENTS[state], created_at=time.time_ns()
        )

    def cancel(self) -> None:
        """End the stream."""
        self._open_streams.remove(self._stream)
        self._stream.cancel()


def _container_or_none(container_id: str) -> ContainerRecord | None:
    try:
        return store.container(container_id)
    except NotFound:
        return None


def _has(labels: dict[str, str], wanted: object) -> bool:
    return all(labels.get(key) == value for key, value in dict(wanted).items())  # type: ignore[call-overload]


def _in_our_tree(cgroup: str) -> str:
    """Return a CRI cgroup parent as our tree takes it: below our own root relative to that, else from the mount."""
    if not cgroup:
        return ""
    ours = os.path.basename(cgroup_tree.find().root)
    inner = cgroup.strip("/").removeprefix(ours + "/")
    return inner if inner != cgroup.strip("/") else "/" + inner
