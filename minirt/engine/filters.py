"""The filters of the CRI's lists."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from minirt.crimessages import api_pb2 as cri

Item = TypeVar("Item", cri.PodSandbox, cri.Container)


def has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Say whether labels are what a selector wants: all of its keys, with its values."""
    return all(labels.get(key) == value for key, value in wanted.items())


def chosen(items: Iterable[Item], wanted: cri.PodSandboxFilter | cri.ContainerFilter) -> list[Item]:
    """Return what a filter finds by the beginning of an id, by labels and by state."""
    return [
        item
        for item in items
        if item.id.startswith(wanted.id)
        and has(item.labels, wanted.label_selector)
        and (not wanted.HasField("state") or item.state == wanted.state.state)
    ]
