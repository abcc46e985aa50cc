"""What a worker tells whoever watches it: Kubernetes' events, and a few more where a terminal wants to know more."""

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

Reason = Literal[
    "Pulling",  # an image is being fetched
    "Pulled",  # an image is here, or was already
    "SandboxCreating",
    "SandboxReady",  # message: the pod's addresses
    "SandboxChanged",  # the sandbox died, another one will be made
    "Created",
    "Started",
    "Exited",  # exit_code and message (Completed, Error, OOMKilled, …) say how
    "BackOff",  # retry_s says for how long
    "Failed",  # something about a container or its image went wrong; it will be tried again
    "FailedMount",
    "FailedCreatePodSandBox",
    "FailedToRetrieveImagePullSecret",  # the image is pulled without it
    "Killing",
]


class Event(Struct, frozen=True):
    """Something happened. ``container`` is empty for what concerns the whole pod."""

    reason: Reason
    message: str = ""
    container: str = ""
    warning: bool = False
    exit_code: int | None = None
    retry_s: float | None = None


Observer = Callable[[Event], None]
"""Called in the thread that runs the worker."""


def ignore(_: Event) -> None:
    """Observe nothing."""
