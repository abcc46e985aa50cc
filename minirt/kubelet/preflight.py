"""Before anything of a pod is made: limits that this machine cannot keep."""

from minirt.cgroups import missing
from minirt.engine import messages
from minirt.errors import MinirtError
from minirt.kubelet import resources
from minirt.kubelet.manifest import Pod
from minirt.kubelet.node import Node


def problems(pod: Pod, node: Node) -> list[MinirtError]:
    """Return an error for each limit of the pod's containers whose controller this machine lacks."""
    found: list[MinirtError] = []
    for container in pod.all_containers:
        limits = messages.resources(resources.of_container(pod, container, node))
        found += missing.errors(limits, f"{pod.metadata.name}/{container.name}")
    return found
