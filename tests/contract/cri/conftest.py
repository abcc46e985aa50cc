"""The same calls to containerd and to minirt's server: what a test sees there must hold before it counts here."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from minirt.crimessages import api_pb2 as cri
from tests.command import Minirt
from tests.peers import busybox, daemon
from tests.peers.containerd import Containerd
from tests.peers.cri import MODE, Pods, Runtime
from tests.peers.daemon import output
from tests.peers.registry import Registry
from tests.peers.serve import Server


@pytest.fixture(scope="session")
def minirt_server(tmp_path_factory: pytest.TempPathFactory, busybox_archives: list[Path]) -> Iterator[Server]:
    """A minirt serve that has localhost/busybox, and nothing else."""
    directory = tmp_path_factory.mktemp("minirt-serve")
    minirt = Minirt(directory / "root", Path(os.environ["MINIRT_STATE"]) / "serve")
    for archive in busybox_archives:
        minirt.output("image", "load", archive)
    server = Server(minirt, directory)
    yield server
    server.close()
    minirt("system", "prune")


@pytest.fixture(scope="session")
def minirt_runtime(minirt_server: Server) -> Iterator[Runtime]:
    runtime = Runtime("minirt", minirt_server.socket)
    yield runtime
    runtime.close()


def remove_sandboxes(runtime: Runtime) -> None:
    """Remove every sandbox that a runtime has."""
    for left in runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items:
        runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=left.id))
        runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=left.id))


@pytest.fixture(scope="session")
def containerd_runtime(containerd: Containerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """Containerd, after a first pod: its bridge stays, and is no leak of the first test's. What others left is gone."""
    runtime = Runtime("containerd", containerd.socket)
    remove_sandboxes(runtime)
    first = Pods(runtime, tmp_path_factory.mktemp("first"))
    first.run(linux=in_our_cgroup())
    first.close()
    yield runtime
    runtime.close()
    daemon.remove_cgroups(os.environ["MINIRT_CGROUP"])


@pytest.fixture(scope="session", params=["minirt", "containerd"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """A runtime that has localhost/busybox."""
    runtime: Runtime = request.getfixturevalue(f"{request.param}_runtime")
    return runtime


def in_our_cgroup(**fields: object) -> cri.LinuxPodSandboxConfig:
    """Return a sandbox's Linux part that keeps a peer's cgroups where they are removed after the test."""
    return cri.LinuxPodSandboxConfig(**{"cgroup_parent": f"/{os.environ['MINIRT_CGROUP']}"} | fields)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def known_differences(request: pytest.FixtureRequest) -> None:
    """Expect the failure of a peer that is known not to pass."""
    name = request.node.callspec.params.get("runtime") if hasattr(request.node, "callspec") else None
    for mark in request.node.iter_markers("differs"):
        if mark.args[0] == name:
            request.applymarker(pytest.mark.xfail(reason=f"{name} differs: {mark.args[1]}"))


@pytest.fixture
def pods(runtime: Runtime, tmp_path: Path) -> Iterator[Pods]:
    """What makes sandboxes and containers for this test. Containerd keeps some of callers that have gone away."""
    if runtime.name == "containerd":
        remove_sandboxes(runtime)
    found = Pods(runtime, tmp_path)
    yield found
    found.close()
    daemon.remove_cgroups(os.environ["MINIRT_CGROUP"])


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    """Return the status code that a call ends with."""
    with pytest.raises(grpc.RpcError) as failed:
        call()
    code: grpc.StatusCode = failed.value.code()
    return code


@pytest.fixture
def no_network() -> cri.NamespaceOption:
    return cri.NamespaceOption(network=MODE.NODE)


@pytest.fixture(scope="session")
def pushed(registry: Registry, busybox_root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name under which a registry on loopback has an image of its own."""
    name = f"{registry.address}/library/busybox:1"
    archive = busybox.archive(tmp_path_factory.mktemp("pushed") / "image.tar", busybox_root, command=("/bin/true",))
    output("skopeo", "copy", "--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{name}")
    return name


@pytest.fixture
def sandbox(pods: Pods) -> str:
    return pods.run()


def security(**fields: Any) -> dict[str, cri.LinuxContainerConfig]:
    """Return the part of a container's configuration that has a security context."""
    context = cri.LinuxContainerSecurityContext(**fields)
    return {"linux": cri.LinuxContainerConfig(security_context=context)}


def refused(pods: Pods, sandbox: str, **fields: Any) -> None:
    """Expect that a container is refused, at the latest when it is started."""
    with pytest.raises(grpc.RpcError):
        pods.container(sandbox, "true", **fields)
