"""Container events in the CRI's words, each with its pod's status at that moment."""

import time
from collections.abc import Callable

from minirt.crimessages import api_pb2 as cri
from minirt.engine import containers, messages, sandboxes, store
from minirt.engine.events import EventStream
from minirt.errors import NotFound

EVENTS = {
    "made": cri.ContainerEventType.CONTAINER_CREATED_EVENT,
    "running": cri.ContainerEventType.CONTAINER_STARTED_EVENT,
    "exited": cri.ContainerEventType.CONTAINER_STOPPED_EVENT,
    "deleted": cri.ContainerEventType.CONTAINER_DELETED_EVENT,
}
"""Of the states that are told, those that the CRI has an event for."""


class ContainerEvents:
    """A stream of events; any thread may ``cancel`` it, and its reader sees the end."""

    def __init__(self, stream: EventStream, forget: Callable[[EventStream], object]) -> None:
        self._stream = stream
        self._forget = forget
        self._events = stream.events()

    def __iter__(self) -> "ContainerEvents":
        return self

    def __next__(self) -> cri.ContainerEventResponse:
        container_id, sandbox_id, state = next(self._events)
        while state not in EVENTS:
            container_id, sandbox_id, state = next(self._events)
        event = cri.ContainerEventResponse(
            container_id=container_id, container_event_type=EVENTS[state], created_at=time.time_ns()
        )
        _add_pod(event, sandbox_id)
        return event

    def cancel(self) -> None:
        """End the stream."""
        self._forget(self._stream)
        self._stream.cancel()


def _add_pod(event: cri.ContainerEventResponse, sandbox_id: str) -> None:
    """Add the statuses of the pod and its containers; of a pod that has been removed there is none."""
    try:
        record = store.sandbox(sandbox_id)
    except NotFound:
        return
    event.pod_sandbox_status.CopyFrom(messages.sandbox_status(record, sandboxes.is_ready(record)))
    event.containers_statuses.extend(
        messages.container_status(one, containers.status(one)) for one in store.containers(sandbox_id)
    )
