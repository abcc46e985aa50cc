"""What the shims of an owner tell, in one stream."""

from itertools import takewhile

import pytest

from minirt.engine import store
from minirt.engine.events import LAST, EventStream
from tests.command import Minirt

pytestmark = [pytest.mark.root, pytest.mark.needs("cgroup2_tree", "busybox")]


def test_a_sandbox_that_is_listed_and_told_of_is_followed_once(minirt: Minirt, busybox: str) -> None:
    """As one is that is being made when somebody begins to listen."""
    container = minirt.output("run", "-d", "--network", "none", busybox, "sleep", "1000")
    (sandbox,) = store.sandboxes("cli")
    stream = EventStream("cli")
    stream.follow(sandbox.id)
    stream.tell("another", sandbox.id, "made")
    events = stream.events()
    assert next(events) == ("another", sandbox.id, "made")  # it listens now
    minirt.output("rm", "-f", container)
    stream.tell(container, sandbox.id, LAST)
    assert [state for _, _, state in takewhile(lambda event: event[2] != LAST, events)].count("exited") == 1
    stream.cancel()
    assert list(events) == []
