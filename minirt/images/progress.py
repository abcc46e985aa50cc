"""How far a pull or a push is, as it is told to whoever shows it."""

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

State = Literal[
    "waiting", "downloading", "present", "downloaded", "unpacking", "done", "uploading", "there", "mounted", "pushed"
]


class Progress(Struct, frozen=True):
    """How far one layer is; ``done`` and ``total`` in bytes of its blob."""

    digest: str
    state: State
    done: int
    total: int


Report = Callable[[Progress], None]
