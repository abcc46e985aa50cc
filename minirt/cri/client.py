"""A pod face at the other end of a unix socket: any CRI v1 runtime, be it minirt's own server or containerd.

    kubelet ── PodFace ──▶ GrpcFace ── gRPC over unix:///run/…/….sock ──▶ RuntimeService, ImageService

Errors come back as MinirtErrors, by the gRPC status code. Calls have no deadline: stopping a container takes as long as
its grace, and an image as long as its bytes.
"""

# ruff: noqa: N802 (the methods are the CRI's RPCs)
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

import grpc  # type: ignore[import-untyped]

from minirt.crimessages import api_pb2 as cri
from minirt.errors import Conflict, InvalidInput, MinirtError, NotFound, Unsupported

Response = TypeVar("Response")

_CONNECT_TIMEOUT_S = 10
_CLASSES: dict[grpc.StatusCode, type[MinirtError]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
}


class GrpcFace:
    """The PodFace of the runtime behind a socket. May be used by several threads; close it, or use it in a with."""

    def __init__(self, socket: Path) -> None:
        # Imported here: the generated stubs import grpc's whole package, which type checkers need not follow.
        from cri_api.v1 import api_pb2_grpc

        self._socket = socket
        self._channel = grpc.insecure_channel(f"unix:{socket}")
        self._runtime: Any = api_pb2_grpc.RuntimeServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._images: Any = api_pb2_grpc.ImageServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> "GrpcFace":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; an event stream that is being read ends."""
        self._channel.close()

    def wait_until_ready(self, timeout_s: float = _CONNECT_TIMEOUT_S) -> None:
        """Wait until the runtime answers. Raises MinirtError: it does not within ``timeout_s``."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout=timeout_s)
        except grpc.FutureTimeoutError as error:
            why = f"nobody answers within {timeout_s:g} s"
            raise MinirtError(f"reach the runtime at {self._socket}", why, "is it running?") from error

    def _call(self, method: Any, request: Any, kind: type[Response]) -> Response:
        """Call an RPC; ``kind`` is what it returns, which the generated stubs do not say."""
        try:
            return cast(Response, method(request))
        except grpc.RpcError as error:
            raise self._translated(request, error) from error

    def _translated(self, request: Any, error: Any) -> MinirtError:
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            return MinirtError(f"reach the runtime at {self._socket}", error.details(), "is it running?")
        what = type(request).__name__.removesuffix("Request")
        return _CLASSES.get(error.code(), MinirtError)(f"do {what}", error.details() or error.code().name)

    def Version(self, request: cri.VersionRequest) -> cri.VersionResponse:
        """Name the runtime and its version."""
        return self._call(self._runtime.Version, request, cri.VersionResponse)

    def Status(self, request: cri.StatusRequest) -> cri.StatusResponse:
        """Return the runtime's conditions."""
        return self._call(self._runtime.Status, request, cri.StatusResponse)

    def RunPodSandbox(self, request: cri.RunPodSandboxRequest) -> cri.RunPodSandboxResponse:
        """Create and start a sandbox."""
        return self._call(self._runtime.RunPodSandbox, request, cri.RunPodSandboxResponse)

    def StopPodSandbox(self, request: cri.StopPodSandboxRequest) -> cri.StopPodSandboxResponse:
        """Stop a sandbox."""
        return self._call(self._runtime.StopPodSandbox, request, cri.StopPodSandboxResponse)

    def RemovePodSandbox(self, request: cri.RemovePodSandboxRequest) -> cri.RemovePodSandboxResponse:
        """Remove a sandbox with its containers."""
        return self._call(self._runtime.RemovePodSandbox, request, cri.RemovePodSandboxResponse)

    def PodSandboxStatus(self, request: cri.PodSandboxStatusRequest) -> cri.PodSandboxStatusResponse:
        """Return a sandbox's state and addresses."""
        return self._call(self._runtime.PodSandboxStatus, request, cri.PodSandboxStatusResponse)

    def ListPodSandbox(self, request: cri.ListPodSandboxRequest) -> cri.ListPodSandboxResponse:
        """List sandboxes."""
        return self._call(self._runtime.ListPodSandbox, request, cri.ListPodSandboxResponse)

    def CreateContainer(self, request: cri.CreateContainerRequest) -> cri.CreateContainerResponse:
        """Make a container."""
        return self._call(self._runtime.CreateContainer, request, cri.CreateContainerResponse)

    def StartContainer(self, request: cri.StartContainerRequest) -> cri.StartContainerResponse:
        """Start a container."""
        return self._call(self._runtime.StartContainer, request, cri.StartContainerResponse)

    def StopContainer(self, request: cri.StopContainerRequest) -> cri.StopContainerResponse:
        """Stop a container within its grace."""
        return self._call(self._runtime.StopContainer, request, cri.StopContainerResponse)

    def RemoveContainer(self, request: cri.RemoveContainerRequest) -> cri.RemoveContainerResponse:
        """Remove a container."""
        return self._call(self._runtime.RemoveContainer, request, cri.RemoveContainerResponse)

    def ListContainers(self, request: cri.ListContainersRequest) -> cri.ListContainersResponse:
        """List containers."""
        return self._call(self._runtime.ListContainers, request, cri.ListContainersResponse)

    def ContainerStatus(self, request: cri.ContainerStatusRequest) -> cri.ContainerStatusResponse:
        """Return a container's state."""
        return self._call(self._runtime.ContainerStatus, request, cri.ContainerStatusResponse)

    def ExecSync(self, request: cri.ExecSyncRequest) -> cri.ExecSyncResponse:
        """Run a command in a container."""
        return self._call(self._runtime.ExecSync, request, cri.ExecSyncResponse)

    def GetContainerEvents(self, request: cri.GetEventsRequest) -> "EventStream":
        """Return the stream of events. Reading it raises Unsupported where the runtime has none."""
        return EventStream(self._runtime.GetContainerEvents(request), partial(self._translated, request))

    def PullImage(self, request: cri.PullImageRequest) -> cri.PullImageResponse:
        """Fetch an image."""
        return self._call(self._images.PullImage, request, cri.PullImageResponse)

    def ImageStatus(self, request: cri.ImageStatusRequest) -> cri.ImageStatusResponse:
        """Return an image, or nothing."""
        return self._call(self._images.ImageStatus, request, cri.ImageStatusResponse)

    def ListImages(self, request: cri.ListImagesRequest) -> cri.ListImagesResponse:
        """List images."""
        return self._call(self._images.ListImages, request, cri.ListImagesResponse)

    def RemoveImage(self, request: cri.RemoveImageRequest) -> cri.RemoveImageResponse:
        """Remove an image."""
        return self._call(self._images.RemoveImage, request, cri.RemoveImageResponse)


class EventStream:
    """Container events as they come; any thread may ``cancel`` it, and the reader sees its end."""

    def __init__(self, call: Any, translated: Callable[[Any], MinirtError]) -> None:
        self._call = call
        self._translated = translated

    def __iter__(self) -> "EventStream":
        return self

    def __next__(self) -> cri.ContainerEventResponse:
        try:
            return cast(cri.ContainerEventResponse, next(self._call))
        except grpc.RpcError as error:
            if self._call.code() == grpc.StatusCode.CANCELLED:
                raise StopIteration from None
            raise self._translated(error) from error

    def cancel(self) -> None:
        """End the stream."""
        self._call.cancel()
