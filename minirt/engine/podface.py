"""The pod face: what a kubelet needs of a runtime, as the CRI v1 says it, without a socket in between.

The methods are the CRI's RPCs; they take and return the CRI's messages. Whoever has this face can drive or be driven:
the engine in this process (``pod run``: no server, no gRPC), minirt's socket, or containerd's. Errors are MinirtErrors;
NotFound where the CRI wants NOT_FOUND. Stop* and Remove* of something unknown succeed.

Source: https://github.com/kubernetes/cri-api/blob/master/pkg/apis/runtime/v1/api.proto
"""

from collections.abc import Iterator
from typing import Protocol

from minirt.crimessages import api_pb2 as cri


class PodFace(Protocol):
    """The RPCs of RuntimeService and ImageService that the kubelet here relies on."""

    def Version(self, request: cri.VersionRequest) -> cri.VersionResponse:
        """Name the runtime and its version."""
        ...

    def Status(self, request: cri.StatusRequest) -> cri.StatusResponse:
        """Return the conditions RuntimeReady and NetworkReady."""
        ...

    def RunPodSandbox(self, request: cri.RunPodSandboxRequest) -> cri.RunPodSandboxResponse:
        """Create and start a sandbox; on any failure undo all of it."""
        ...

    def StopPodSandbox(self, request: cri.StopPodSandboxRequest) -> cri.StopPodSandboxResponse:
        """Kill the sandbox's containers, free its address; may be called many times."""
        ...

    def RemovePodSandbox(self, request: cri.RemovePodSandboxRequest) -> cri.RemovePodSandboxResponse:
        """Remove the sandbox with all its containers."""
        ...

    def PodSandboxStatus(self, request: cri.PodSandboxStatusRequest) -> cri.PodSandboxStatusResponse:
        """Return state, addresses and namespaces; NotFound if there is none."""
        ...

    def ListPodSandbox(self, request: cri.ListPodSandboxRequest) -> cri.ListPodSandboxResponse:
        """List sandboxes of this owner, after a check that they live."""
        ...

    def CreateContainer(self, request: cri.CreateContainerRequest) -> cri.CreateContainerResponse:
        """Make a container in state CREATED; its image must be here."""
        ...

    def StartContainer(self, request: cri.StartContainerRequest) -> cri.StartContainerResponse:
        """Start it; return only after execve has succeeded."""
        ...

    def StopContainer(self, request: cri.StopContainerRequest) -> cri.StopContainerResponse:
        """Send the stop signal, wait ``timeout`` seconds, then SIGKILL (0: at once)."""
        ...

    def RemoveContainer(self, request: cri.RemoveContainerRequest) -> cri.RemoveContainerResponse:
        """Remove it, killing it first if need be; its log stays."""
        ...

    def ListContainers(self, request: cri.ListContainersRequest) -> cri.ListContainersResponse:
        """List containers, exited ones too."""
        ...

    def ContainerStatus(self, request: cri.ContainerStatusRequest) -> cri.ContainerStatusResponse:
        """Return state, times, exit code and reason (Completed, Error, OOMKilled, StartError, Unknown)."""
        ...

    def ExecSync(self, request: cri.ExecSyncRequest) -> cri.ExecSyncResponse:
        """Run a command inside, return what it wrote and its exit code."""
        ...

    def GetContainerEvents(self, request: cri.GetEventsRequest) -> Iterator[cri.ContainerEventResponse]:
        """Yield an event whenever a container is created, started, stopped or deleted; never ends by itself."""
        ...

    def PullImage(self, request: cri.PullImageRequest) -> cri.PullImageResponse:
        """Fetch an image; ``image_ref`` is its id."""
        ...

    def ImageStatus(self, request: cri.ImageStatusRequest) -> cri.ImageStatusResponse:
        """Return the image, or nothing at all if it is not here."""
        ...

    def ListImages(self, request: cri.ListImagesRequest) -> cri.ListImagesResponse:
        """List images, one entry an id."""
        ...

    def RemoveImage(self, request: cri.RemoveImageRequest) -> cri.RemoveImageResponse:
        """Remove an image with all its names."""
        ...
