"""ExecSync: output, exit codes, limits of time and size."""

import time

import grpc
import pytest

from minirt.crimessages import api_pb2 as cri
from tests.contract.cri.conftest import code_of
from tests.peers.cri import Pods
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer]


@pytest.fixture
def container(pods: Pods) -> str:
    return pods.container(pods.run())


def test_output_and_exit_code_come_back(pods: Pods, container: str) -> None:
    found = pods.exec(container, "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (found.stdout, found.stderr, found.exit_code) == (b"out\n", b"err\n", 5)


def test_output_may_be_any_bytes(pods: Pods, container: str) -> None:
    assert pods.exec(container, "printf", r"\377\000\n").stdout == b"\xff\0\n"


def test_a_command_that_is_not_there_is_an_error(pods: Pods, container: str) -> None:
    with pytest.raises(grpc.RpcError):
        pods.exec(container, "/no/such/program")


def test_death_by_a_signal_is_128_and_its_number(pods: Pods, container: str) -> None:
    assert pods.exec(container, "sh", "-c", "kill -TERM $$").exit_code == 143


def test_when_time_is_up_the_command_is_killed_and_the_container_is_not(pods: Pods, container: str) -> None:
    begun = time.monotonic()
    failed = code_of(lambda: pods.exec(container, "sleep", "4242", timeout_s=1))
    assert failed == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - begun < 20
    assert pods.status(container).state == cri.ContainerState.CONTAINER_RUNNING
    await_true(lambda: b"4242" not in pods.exec(container, "ps").stdout, "the end of the command")


@pytest.mark.differs("containerd", "it kills only the command itself")
def test_when_time_is_up_what_the_command_started_is_killed_too(pods: Pods, container: str) -> None:
    """Also one that has left the session and its parents: init is its parent then."""
    script = "setsid sleep 4242 & setsid sh -c 'sleep 4444 &'; sh -c 'sleep 4343; :'"
    assert code_of(lambda: pods.exec(container, "sh", "-c", script, timeout_s=1)) == grpc.StatusCode.DEADLINE_EXCEEDED
    seen = pods.exec(container, "ps").stdout
    assert not [number for number in (b"4242", b"4343", b"4444") if number in seen]


def test_what_a_command_leaves_running_goes_on(pods: Pods, container: str) -> None:
    assert pods.exec(container, "sh", "-c", "sleep 4545 >/dev/null 2>&1 &", timeout_s=30).exit_code == 0
    assert b"4545" in pods.exec(container, "ps").stdout


def test_it_is_over_when_the_command_ends_though_another_holds_the_pipe(pods: Pods, container: str) -> None:
    begun = time.monotonic()
    found = pods.exec(container, "sh", "-c", "sleep 3 & echo done", timeout_s=30)
    assert found.stdout == b"done\n"
    assert time.monotonic() - begun < 2.5 or pods.runtime.name == "containerd"


@pytest.mark.differs("containerd", "its answer is larger than the message it may send")
def test_much_output_is_cut_and_drained(pods: Pods, container: str) -> None:
    found = pods.exec(container, "sh", "-c", "echo begin >&2; head -c 20000000 /dev/zero; exit 3", timeout_s=60)
    assert 15 << 20 < len(found.stdout) < 16 << 20
    assert (found.stderr, found.exit_code) == (b"begin\n", 3)


def test_only_a_running_container_can_be_execd_into(pods: Pods) -> None:
    sandbox = pods.run()
    with pytest.raises(grpc.RpcError):
        pods.exec(pods.create(sandbox), "true")
    ended = pods.container(sandbox, "true")
    pods.ended(ended)
    with pytest.raises(grpc.RpcError):
        pods.exec(ended, "true")


def test_no_command_is_refused(pods: Pods, container: str) -> None:
    with pytest.raises(grpc.RpcError):
        pods.exec(container)
