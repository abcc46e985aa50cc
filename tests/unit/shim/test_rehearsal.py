"""A rehearsal leaves its process as a zygote was: without handlers, and with no descriptor more."""

import os
import signal
from collections.abc import Iterator

import pytest

from minirt.cgroups import tree
from minirt.engine import example
from minirt.errors import Unsupported
from minirt.security.capabilities import last_cap
from minirt.shim import rehearsal


@pytest.fixture
def as_in_a_zygote(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tree, "find", lambda: tree.Tree("/cg", "/cg", "/cg/minirt"))
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("as_in_a_zygote")
def test_it_leaves_no_trace() -> None:
    try:
        spec = example.spec()
    except Unsupported as error:
        pytest.skip(str(error))
    before = os.listdir("/proc/self/fd")
    rehearsal.rehearse(spec, last_cap())
    assert os.listdir("/proc/self/fd") == before
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.usefixtures("as_in_a_zygote")
def test_what_is_no_spec_is_refused() -> None:
    with pytest.raises(ValueError, match="truncated"):
        rehearsal.rehearse(b"{", last_cap())
