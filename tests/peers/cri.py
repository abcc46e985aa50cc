"""A CRI runtime as its clients see it: gRPC's generated stubs on a socket, and nothing of minirt's own client."""

import itertools
from pathlib import Path
from typing import Any

import grpc

from minirt.crimessages import api_pb2 as cri
from tests.peers import busybox
from tests.peers.daemon import await_true

TIMEOUT_S = 60.0
MODE = cri.NamespaceMode
SLEEP = ("sleep", "1000000")
_count = itertools.count()


class Runtime:
    """A runtime's two services. Its methods are the RPCs: ``runtime.Version(cri.VersionRequest())``."""

    def __init__(self, name: str, socket: Path) -> None:
        from cri_api.v1 import api_pb2_grpc

        self.name = name
        self.socket = socket
        self._channel = grpc.insecure_channel(f"unix:{socket}", [("grpc.max_receive_message_length", 64 << 20)])
        self._services = [
            api_pb2_grpc.RuntimeServiceStub(self._channel),
            api_pb2_grpc.ImageServiceStub(self._channel),
        ]
        grpc.channel_ready_future(self._channel).result(timeout=TIMEOUT_S)

    def __getattr__(self, name: str) -> Any:
        service = next(service for service in self._services if hasattr(service, name))
        method = getattr(service, name)

        def call(request: Any, timeout: float = TIMEOUT_S) -> Any:
            return method(request, timeout=timeout)

        return method if name == "GetContainerEvents" else call

    def method(self, name: str) -> Any:
        """Return an RPC as gRPC's own callable, with ``future``."""
        return getattr(next(service for service in self._services if hasattr(service, name)), name)

    def close(self) -> None:
        """Hang up."""
        self._channel.close()


class Pods:
    """Makes sandboxes and containers for one test, and removes them after it. ``handler`` is the runtime handler."""

    def __init__(self, runtime: Runtime, logs: Path, handler: str = "") -> None:
        self.runtime = runtime
        self.handler = handler
        self.logs = logs
        self.made: list[str] = []
        self.configs: dict[str, cri.PodSandboxConfig] = {}

    def config(self, **fields: Any) -> cri.PodSandboxConfig:
        """Return the configuration of a sandbox with names of its own."""
        number = next(_count)
        name = f"pod{number}"
        metadata = cri.PodSandboxMetadata(name=name, uid=f"uid{number}", namespace="tests", attempt=0)
        fields = {"metadata": metadata, "hostname": name, "log_directory": str(self.logs / name)} | fields
        (self.logs / name).mkdir(exist_ok=True)
        return cri.PodSandboxConfig(**fields)

    def run(self, config: cri.PodSandboxConfig | None = None, **fields: Any) -> str:
        """Make a sandbox, and return its id."""
        config = config or self.config(**fields)
        request = cri.RunPodSandboxRequest(config=config, runtime_handler=self.handler)
        made = self.runtime.RunPodSandbox(request).pod_sandbox_id
        self.made.append(made)
        self.configs[made] = config
        return str(made)

    def container_config(self, *command: str, **fields: Any) -> cri.ContainerConfig:
        """Return the configuration of a container of busybox with a name of its own."""
        name = f"container{next(_count)}"
        fields = {
            "metadata": cri.ContainerMetadata(name=name),
            "image": cri.ImageSpec(image=busybox.NAME),
            "command": command or SLEEP,
            "log_path": f"{name}.log",
        } | fields
        return cri.ContainerConfig(**fields)

    def create(self, sandbox: str, *command: str, config: cri.ContainerConfig | None = None, **fields: Any) -> str:
        """Make a container, and return its id."""
        request = cri.CreateContainerRequest(
            pod_sandbox_id=sandbox,
            config=config or self.container_config(*command, **fields),
            sandbox_config=self.configs[sandbox],
        )
        return str(self.runtime.CreateContainer(request).container_id)

    def start(self, container: str) -> str:
        """Start a container, and return its id."""
        self.runtime.StartContainer(cri.StartContainerRequest(container_id=container))
        return container

    def container(self, sandbox: str, *command: str, **fields: Any) -> str:
        """Make a container, start it, and return its id."""
        return self.start(self.create(sandbox, *command, **fields))

    def status(self, container: str) -> cri.ContainerStatus:
        """Return a container's status."""
        request = cri.ContainerStatusRequest(container_id=container)
        status: cri.ContainerStatus = self.runtime.ContainerStatus(request).status
        return status

    def sandbox_status(self, sandbox: str) -> cri.PodSandboxStatus:
        """Return a sandbox's status."""
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox)
        status: cri.PodSandboxStatus = self.runtime.PodSandboxStatus(request).status
        return status

    def ended(self, container: str) -> cri.ContainerStatus:
        """Wait until a container has ended; return its status."""
        exited = cri.ContainerState.CONTAINER_EXITED
        await_true(lambda: self.status(container).state == exited, f"the end of {container}")
        return self.status(container)

    def output(self, sandbox: str, *command: str, **fields: Any) -> str:
        """Run a container to its end, and return what it wrote."""
        container = self.container(sandbox, *command, **fields)
        self.ended(container)
        return self.log(container)

    def log(self, container: str) -> str:
        """Return what a container has written by now, without times, streams and tags."""
        path = Path(self.status(container).log_path)
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return "".join(line.split(" ", 3)[3] for line in lines)

    def exec(self, container: str, *command: str, timeout_s: int = 30) -> cri.ExecSyncResponse:
        """Run a command in a container; return what came of it."""
        request = cri.ExecSyncRequest(container_id=container, cmd=command, timeout=timeout_s)
        response: cri.ExecSyncResponse = self.runtime.ExecSync(request)
        return response

    def stop(self, sandbox: str) -> None:
        """Stop a sandbox."""
        self.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))

    def remove(self, sandbox: str) -> None:
        """Remove a sandbox."""
        self.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))

    def sandboxes(self, **wanted: Any) -> list[str]:
        """Return the ids of sandboxes that a filter finds."""
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(**wanted))
        return [item.id for item in self.runtime.ListPodSandbox(request).items]

    def containers(self, **wanted: Any) -> list[str]:
        """Return the ids of containers that a filter finds."""
        request = cri.ListContainersRequest(filter=cri.ContainerFilter(**wanted))
        return [item.id for item in self.runtime.ListContainers(request).containers]

    def close(self) -> None:
        """Remove what was made; containerd's StopPodSandbox does not like what is gone already."""
        for sandbox in set(self.made) & set(self.sandboxes()):
            self.stop(sandbox)
            self.remove(sandbox)
