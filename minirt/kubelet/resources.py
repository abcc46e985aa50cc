"""Requests and limits, as the numbers that cgroups and the OOM killer understand.

    requests.cpu ──▶ cpu_shares = max(2, milli × 1024 / 1000)           limits.cpu ──▶ cpu_quota = milli × period / 1000
    limits.memory ─▶ memory_limit_in_bytes                              requests.memory ─▶ oom_score_adj, with the QoS

A limit without a request is a request too. The pod's own cgroup gets the sums of the containers (or what its hungriest
init container asks for, if that is more), and a limit only if every container has one.

What the manifest asks for is always sent, and it is the runtime that refuses it where the kernel cannot do it. What it
does not ask for (least shares, no swap, death as one) is sent only where the kernel has the controller for it.

Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/ and
https://kubernetes.io/docs/tasks/configure-pod-container/quality-service-pod/
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Literal

from minirt.crimessages import api_pb2 as cri
from minirt.kubelet.manifest import Container, Pod
from minirt.kubelet.node import Node

MIN_SHARES = 2
MAX_SHARES = 262144
PERIOD_US = 100_000
MIN_QUOTA_US = 1000
GUARANTEED_OOM_SCORE_ADJ = -997

Qos = Literal["Guaranteed", "Burstable", "BestEffort"]
Amount = Callable[[Container], Fraction]
"""Returns how much of something a container asks for; 0 for nothing."""


def cpu_request(container: Container) -> Fraction:
    """Return the CPUs a container asks for."""
    asked = container.resources.requests.cpu or container.resources.limits.cpu
    return asked.exact if asked else Fraction(0)


def cpu_limit(container: Container) -> Fraction:
    """Return the CPUs a container never gets more than, 0 for no limit."""
    limit = container.resources.limits.cpu
    return limit.exact if limit else Fraction(0)


def memory_request(container: Container) -> Fraction:
    """Return the bytes a container asks for."""
    asked = container.resources.requests.memory or container.resources.limits.memory
    return asked.exact if asked else Fraction(0)


def memory_limit(container: Container) -> Fraction:
    """Return the bytes a container never gets more than, 0 for no limit."""
    limit = container.resources.limits.memory
    return limit.exact if limit else Fraction(0)


def shares(cpus: Fraction) -> int:
    """Return cpu.shares for a request."""
    return max(MIN_SHARES, min(MAX_SHARES, int(cpus * 1024)))


def quota_us(cpus: Fraction) -> int:
    """Return cpu.cfs_quota_us for a limit; 0 for none."""
    return max(MIN_QUOTA_US, int(cpus * PERIOD_US)) if cpus else 0


def qos(pod: Pod) -> Qos:
    """Return the pod's quality of service class, by which the kernel chooses what to kill first."""
    amounts = (cpu_request, cpu_limit, memory_request, memory_limit)
    every = [amount(container) for container in pod.all_containers for amount in amounts]
    if not any(every):
        return "BestEffort"
    pairs = ((cpu_request, cpu_limit), (memory_request, memory_limit))
    fixed = all(asked(c) == limit(c) for c in pod.all_containers for asked, limit in pairs)
    return "Guaranteed" if all(every) and fixed else "Burstable"


def oom_score_adj(pod: Pod, container: Container, node: Node) -> int:
    """Return how readily the kernel kills the container: the less memory it asks for, the sooner."""
    match qos(pod):
        case "Guaranteed":
            return GUARANTEED_OOM_SCORE_ADJ
        case "BestEffort":
            return 1000
        case _:
            score = 1000 - int(1000 * memory_request(container) // node.memory_bytes)
            return min(999, max(1000 + GUARANTEED_OOM_SCORE_ADJ, score))


def of_container(pod: Pod, container: Container, node: Node) -> cri.LinuxContainerResources:
    """Return the limits of one container's cgroup."""
    resources = _limits(cpu_request(container), cpu_limit(container), int(memory_limit(container)), node)
    resources.oom_score_adj = oom_score_adj(pod, container, node)
    if "memory" in node.controllers:
        resources.unified["memory.oom.group"] = "1"
        resources.unified["memory.swap.max"] = "0"
    return resources


def of_pod(pod: Pod, node: Node) -> cri.LinuxContainerResources:
    """Return the limits of the cgroup that holds the whole pod."""
    return _limits(_together(pod, cpu_request), _limit_of_all(pod, cpu_limit), pod_memory_limit(pod), node)


def pod_memory_limit(pod: Pod) -> int:
    """Return the bytes that the whole pod never gets more than, 0 for no limit."""
    return int(_limit_of_all(pod, memory_limit))


def _limits(request: Fraction, limit: Fraction, memory_bytes: int, node: Node) -> cri.LinuxContainerResources:
    resources = cri.LinuxContainerResources(memory_limit_in_bytes=memory_bytes)
    if request or "cpu" in node.controllers:
        resources.cpu_shares = shares(request)
    if limit:
        resources.cpu_period = PERIOD_US
        resources.cpu_quota = quota_us(limit)
    return resources


def _together(pod: Pod, amount: Amount) -> Fraction:
    """Return what all containers need at once, or what one init container needs alone."""
    at_once = sum(map(amount, pod.spec.containers), Fraction(0))
    return max([at_once, *map(amount, pod.spec.init_containers)])


def _limit_of_all(pod: Pod, limit: Amount) -> Fraction:
    """Return the limits' sum, or 0 if a container has none."""
    return _together(pod, limit) if all(map(limit, pod.all_containers)) else Fraction(0)
