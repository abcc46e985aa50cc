"""Runtime handlers: minirt's pods with their containers run by runc and crun, and nobody sees a difference."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.cri import Pods, Runtime

pytestmark = [pytest.mark.root, pytest.mark.peer]
HANDLERS = ("minirt", "runc", pytest.param("crun", marks=pytest.mark.vm))


@pytest.fixture(params=HANDLERS)
def pods(request: pytest.FixtureRequest, minirt_runtime: Runtime, tmp_path: Path) -> Iterator[Pods]:
    """What makes pods of one handler."""
    found = Pods(minirt_runtime, tmp_path, handler=request.param)
    yield found
    found.close()


def test_a_container_writes_its_log_and_its_exit_code_is_kept(pods: Pods, sandbox: str) -> None:
    status = pods.ended(container := pods.container(sandbox, "sh", "-c", "echo out; echo err >&2; exit 3"))
    assert (status.exit_code, status.reason) == (3, "Error")
    assert sorted(pods.log(container).splitlines()) == ["err", "out"]
