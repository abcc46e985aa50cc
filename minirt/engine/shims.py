"""Shims that do not answer: stopped, or traced by somebody. What is to end must end all the same.

A shim answers such questions at once; one that has not after ``ANSWER_S`` is killed, and then is like any dead one: its
containers' cgroups are there to work on, and exits that it would have told of are unknown.
"""

import contextlib
import select
import signal
from collections.abc import Iterator

from minirt.engine import store
from minirt.errors import NotFound
from minirt.linux import fds, process
from minirt.shim.client import NoAnswer, ShimClient

ANSWER_S = 20.0


@contextlib.contextmanager
def ending(sandbox_id: str, longer_s: float = 0.0) -> Iterator[ShimClient]:
    """Connect to a shim to end something; kill it where it does not answer in time, and ``longer_s`` more.

    Raises:
        ShimError: it has ended, or now has.
    """
    try:
        with ShimClient(sandbox_id, ANSWER_S + longer_s) as shim:
            yield shim
    except NoAnswer:
        with contextlib.suppress(NotFound, ProcessLookupError):
            _kill(*store.sandbox(sandbox_id).shim)
        raise


def _kill(pid: int, started: int) -> None:
    with fds.closing(process.pidfd_open(pid)) as shim:
        if process.is_alive(pid, started):
            process.pidfd_send_signal(shim, signal.SIGKILL)
            poll = select.poll()
            poll.register(shim, select.POLLIN)
            poll.poll(int(ANSWER_S * 1000))
