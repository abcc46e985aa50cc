"""A pod's status in Kubernetes' own shape and words, computed from what the runtime says. Nothing here asks anything.

    phase       Pending ─▶ Running ─▶ Succeeded | Failed
    conditions  PodScheduled, PodReadyToStartContainers, Initialized, ContainersReady, Ready
    containers  waiting (reason) | running (since) | terminated (exit code, reason), and the state before

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct, field

from minirt.crimessages import api_pb2 as cri
from minirt.kubelet import decide, pods, resources
from minirt.kubelet.manifest import Container, Pod
from minirt.kubelet.node import Node
from minirt.kubelet.pods import Actual

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]
_NS = 1_000_000_000


class Waiting(Struct, omit_defaults=True, frozen=True):
    """It does not run yet, or not again: ContainerCreating, ErrImagePull, CrashLoopBackOff, …"""

    reason: str
    message: str = ""


class Running(Struct, rename="camel", omit_defaults=True, frozen=True):
    """It runs."""

    started_at: str


class Terminated(Struct, rename="camel", frozen=True):
    """It has ended: Completed, Error, OOMKilled, …"""

    exit_code: int
    reason: str
    started_at: str
    finished_at: str
    message: str = ""


class State(Struct, omit_defaults=True, frozen=True):
    """One of the three, or none (there was no state before)."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Struct, rename="camel", frozen=True):
    """One container. ``container_id`` is the runtime's id of the newest one of this name."""

    name: str
    state: State
    last_state: State
    ready: bool
    started: bool
    restart_count: int
    image: str
    image_id: str = field(default="", name="imageID")
    container_id: str = field(default="", name="containerID")


class Condition(Struct, frozen=True):
    """Whether something about the pod is true."""

    type: str
    status: Literal["True", "False"]


class PodStatus(Struct, rename="camel", omit_defaults=True, frozen=True):
    """All of it. ``start_time`` is when the first sandbox was made."""

    phase: Phase
    conditions: tuple[Condition, ...]
    container_statuses: tuple[ContainerStatus, ...]
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    pod_ip: str = field(default="", name="podIP")
    qos_class: str = ""
    start_time: str = ""
    reason: str = ""
    message: str = ""


def of(pod: Pod, actual: Actual, waiting: Mapping[str, Waiting] | None = None) -> PodStatus:
    """Return the pod's status.

    ``waiting`` is what a worker knows beyond the runtime: by container why it waits, under "" why the pod does.
    """
    known = waiting or {}
    ordinary = tuple(_container(pod, each, actual, known) for each in pod.spec.containers)
    initial = tuple(_container(pod, each, actual, known) for each in pod.spec.init_containers)
    trouble = known.get("", Waiting(""))
    oldest = actual.sandboxes[-1] if actual.sandboxes else None
    return PodStatus(
        phase=_phase(pod, actual, ordinary),
        conditions=_conditions(actual, initial, ordinary),
        container_statuses=ordinary,
        init_container_statuses=initial,
        pod_ip=next(iter(actual.ips), ""),
        qos_class=resources.qos(pod),
        start_time=_time(oldest.created_at) if oldest else "",
        reason=trouble.reason,
        message=trouble.message,
    )


def pod_ip(pod: Pod, actual: Actual, node: Node) -> tuple[str, ...]:
    """Return the pod's addresses: with the host's network the host's."""
    return (node.address,) if pod.spec.host_network else actual.ips


def _container(pod: Pod, container: Container, actual: Actual, known: Mapping[str, Waiting]) -> ContainerStatus:
    history = actual.of(container.name)
    newest = history[0] if history else None
    state = _state(pod, container, newest, known)
    before = history[0] if newest and state.waiting and pods.exited(newest) else next(iter(history[1:]), None)
    return ContainerStatus(
        name=container.name,
        state=state,
        last_state=State(terminated=_terminated(before)) if before and pods.exited(before) else State(),
        ready=pods.running(newest) or (container in pod.spec.init_containers and _succeeded(newest)),
        started=pods.running(newest),
        restart_count=newest.metadata.attempt if newest else 0,
        image=container.image,
        image_id=newest.image_ref if newest else "",
        container_id=newest.id if newest else "",
    )


def _state(pod: Pod, container: Container, newest: cri.ContainerStatus | None, known: Mapping[str, Waiting]) -> State:
    if newest is not None and pods.running(newest):
        return State(running=Running(_time(newest.started_at)))
    if container.name in known:
        return State(waiting=known[container.name])
    if newest is not None and pods.exited(newest):
        return State(terminated=_terminated(newest))
    initial = pod.spec.init_containers and container in pod.spec.containers
    return State(waiting=Waiting("PodInitializing" if initial else "ContainerCreating"))


def _terminated(ended: cri.ContainerStatus) -> Terminated:
    return Terminated(
        exit_code=ended.exit_code,
        reason=ended.reason or ("Error" if ended.exit_code else "Completed"),
        message=ended.message,
        started_at=_time(ended.started_at),
        finished_at=_time(ended.finished_at),
    )


def _succeeded(newest: cri.ContainerStatus | None) -> bool:
    return newest is not None and pods.exited(newest) and newest.exit_code == 0


def _phase(pod: Pod, actual: Actual, ordinary: tuple[ContainerStatus, ...]) -> Phase:
    code = decide.exit_code(pod, actual)
    if code is None and actual.sandbox is not None and not actual.ready:
        code = _code_of_stopped(pod, actual)
    if code is not None:
        return "Failed" if code else "Succeeded"
    begun = all(each.state.running or each.state.terminated or each.last_state.terminated for each in ordinary)
    return "Running" if begun else "Pending"


def _code_of_stopped(pod: Pod, actual: Actual) -> int | None:
    """Return how a pod ended that was stopped: 0 if every container had succeeded, None if one never began."""
    lasts = [actual.last(each.name) for each in pod.spec.containers]
    codes = [last.exit_code for last in lasts if last is not None and pods.exited(last)]
    return max(codes, key=abs) if len(codes) == len(lasts) else None


def _conditions(
    actual: Actual, initial: tuple[ContainerStatus, ...], ordinary: tuple[ContainerStatus, ...]
) -> tuple[Condition, ...]:
    ready = actual.ready and all(each.ready for each in ordinary)
    begun = any(each.container_id for each in ordinary)
    facts = {
        "PodScheduled": True,
        "PodReadyToStartContainers": actual.ready,
        "Initialized": begun or all(each.ready for each in initial),
        "ContainersReady": ready,
        "Ready": ready,
    }
    return tuple(Condition(name, "True" if fact else "False") for name, fact in facts.items())


def _time(ns: int) -> str:
    """Return a time of the CRI (Unix time in ns) as Kubernetes writes it, "" for none."""
    return datetime.fromtimestamp(ns // _NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if ns else ""
