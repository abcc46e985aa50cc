"""A container's environment: its variables, what they take from the pod, and ``$(NAME)`` in values and commands.

Source: https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
"""

import math
import re
from collections.abc import Mapping
from fractions import Fraction

from minirt.kubelet import resources
from minirt.kubelet.manifest import Container, EnvVar, Pod, ResourceFieldSelector
from minirt.kubelet.node import Node

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_ENTRY = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Return ``text`` with each ``$(NAME)`` replaced; unknown names stay as they are, and ``$$`` is a plain ``$``."""

    def replaced(match: re.Match[str]) -> str:
        return "$" if match[1] is None else variables.get(match[1], match[0])

    return _REFERENCE.sub(replaced, text)


def variables(pod: Pod, container: Container, pod_ips: tuple[str, ...], node: Node) -> dict[str, str]:
    """Return the variables in the order of the manifest; a value may refer to those before it."""
    known: dict[str, str] = {}
    for env in container.env:
        known[env.name] = _value(env, known, pod, container, pod_ips, node)
    return known


def _value(
    env: EnvVar, known: dict[str, str], pod: Pod, container: Container, pod_ips: tuple[str, ...], node: Node
) -> str:
    source = env.value_from
    if source and source.field_ref:
        return _field(source.field_ref.field_path, pod, pod_ips, node)
    if source and source.resource_field_ref:
        return _resource(source.resource_field_ref, pod, container, node)
    return expand(env.value, known)


def _field(path: str, pod: Pod, pod_ips: tuple[str, ...], node: Node) -> str:
    if entry := _ENTRY.fullmatch(path):
        held = pod.metadata.labels if entry[1] == "labels" else pod.metadata.annotations
        return held.get(entry[2], "")
    ips = (node.address,) if pod.spec.host_network else pod_ips
    return {
        "metadata.name": pod.metadata.name,
        "metadata.namespace": pod.metadata.namespace,
        "metadata.uid": pod.uid,
        "spec.nodeName": node.name,
        "status.hostIP": node.address,
        "status.hostIPs": node.address,
        "status.podIP": ips[0] if ips else "",
        "status.podIPs": ",".join(ips),
    }[path]


def _resource(selector: ResourceFieldSelector, pod: Pod, container: Container, node: Node) -> str:
    """Return an amount in units of the divisor, rounded up; without a limit it is all that the machine has."""
    named = [each for each in pod.all_containers if each.name == selector.container_name]
    of = named[0] if named else container
    amount = {
        "limits.cpu": resources.cpu_limit(of) or Fraction(node.cpus),
        "limits.memory": resources.memory_limit(of) or Fraction(node.memory_bytes),
        "requests.cpu": resources.cpu_request(of),
        "requests.memory": resources.memory_request(of),
    }[selector.resource]
    divisor = selector.divisor.exact if selector.divisor and selector.divisor.exact > 0 else Fraction(1)
    return str(math.ceil(amount / divisor))
