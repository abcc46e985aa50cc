"""What vm/run says of itself: steps on stderr, and the one kind of error."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class VmError(Exception):
    """The machine could not be built or run: what, why, and what to do."""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what was done and how long it took, once it is."""
    begin = time.monotonic()
    yield
    say(f"{time.monotonic() - begin:5.0f} s  {what}")


def say(text: str) -> None:
    """Tell the caller on stderr, which vm/run keeps apart from the command's output but for the prefix."""
    print(f"vm/run: {text}", file=sys.stderr, flush=True)
