"""Pods and CRI statuses for the tests of the kubelet's pure parts."""

from typing import Any

import yaml

from minirt.crimessages import api_pb2 as cri
from minirt.kubelet import loading
from minirt.kubelet.manifest import Pod
from minirt.kubelet.node import Node, Resolver
from minirt.kubelet.pods import Actual

UID = "11111111-2222-3333-4444-555555555555"
GIB = 1 << 30


def machine(**changes: Any) -> Node:
    """Return a machine with four CPUs, 4 GiB and every controller, but for the ``changes``."""
    facts = {
        "name": "machine",
        "address": "192.0.2.1",
        "cpus": 4,
        "memory_bytes": 4 * GIB,
        "controllers": frozenset(("cpu", "memory", "pids")),
        "cgroup_root": "minirt",
        "resolver": Resolver(("192.0.2.53",), ("example.org",), ("edns0",)),
        "hosts": "127.0.0.1\tlocalhost machine\n",
    }
    return Node(**(facts | changes))


NODE = machine()
READY = cri.PodSandboxState.SANDBOX_READY
DEAD = cri.PodSandboxState.SANDBOX_NOTREADY
CREATED = cri.ContainerState.CONTAINER_CREATED
RUNNING = cri.ContainerState.CONTAINER_RUNNING
EXITED = cri.ContainerState.CONTAINER_EXITED


def container(name: str = "main", **fields: Any) -> dict[str, Any]:
    """Return a container as a manifest has it."""
    return {"name": name, "image": "busybox:1"} | fields


def document(*containers: dict[str, Any], metadata: dict[str, Any] | None = None, **spec: Any) -> str:
    """Return a manifest as YAML."""
    meta = {"name": "hello", "uid": UID} | (metadata or {})
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": meta}
    return yaml.safe_dump(whole | {"spec": {"containers": list(containers) or [container()]} | spec}, sort_keys=False)


def pod(*containers: dict[str, Any], metadata: dict[str, Any] | None = None, **spec: Any) -> Pod:
    """Return a pod."""
    return loading.loads(document(*containers, metadata=metadata, **spec), "pod.yaml")


def sandbox(attempt: int = 0, state: int = READY, ip: str = "10.0.0.2") -> cri.PodSandboxStatus:
    """Return a sandbox's status."""
    return cri.PodSandboxStatus(
        id=f"sandbox{attempt}",
        metadata=cri.PodSandboxMetadata(name="hello", uid=UID, attempt=attempt),
        state=state,
        created_at=1_000_000_000 * (attempt + 1),
        network=cri.PodSandboxNetworkStatus(ip=ip),
    )


def status(name: str, state: int, code: int = 0, *, attempt: int = 0, ended_s: float = 0) -> cri.ContainerStatus:
    """Return a container's status."""
    return cri.ContainerStatus(
        id=f"{name}-{attempt}",
        metadata=cri.ContainerMetadata(name=name, attempt=attempt),
        state=state,
        created_at=1_000_000_000,
        started_at=2_000_000_000,
        exit_code=code,
        finished_at=int(ended_s * 1_000_000_000),
    )


def actual(*statuses: cri.ContainerStatus, state: int = READY) -> Actual:
    """Return one sandbox with these containers."""
    return Actual((sandbox(state=state),), (statuses,))
