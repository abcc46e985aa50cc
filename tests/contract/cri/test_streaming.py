"""Exec and attach: over SPDY and WebSocket, with clients that know nothing of minirt."""

import urllib.error
import urllib.request
from typing import Any

import grpc
import pytest

from tests.contract.cri.conftest import code_of
from tests.peers.cri import Pods
from tests.peers.daemon import await_true
from tests.peers.spdy import Refused, SpdyClient
from tests.peers.streams import STDOUT, V4, V5, Socket, Spdy, attach_url, code, exec_url

pytestmark = [pytest.mark.root, pytest.mark.peer]


@pytest.fixture
def container(pods: Pods) -> str:
    return pods.container(pods.run())


@pytest.fixture(params=[Spdy, Socket])
def stream(request: pytest.FixtureRequest) -> Any:
    return request.param


# --- exec


def test_output_and_success(pods: Pods, container: str, stream: Any) -> None:
    with stream(exec_url(pods, container, "sh", "-c", "echo out; echo err >&2")) as talk:
        stdout, stderr, status = talk.end()
    assert (stdout, stderr, code(status)) == (b"out\n", b"err\n", 0)


@pytest.mark.parametrize("number", [1, 42, 255])
def test_an_exit_code_travels_as_a_status(pods: Pods, container: str, stream: Any, number: int) -> None:
    with stream(exec_url(pods, container, "sh", "-c", f"exit {number}")) as talk:
        assert code(talk.end()[2]) == number


def test_a_command_that_is_not_there_is_a_failure(pods: Pods, container: str, stream: Any) -> None:
    with stream(exec_url(pods, container, "/no/such/program")) as talk:
        status = talk.end()[2]
    assert status["status"] == "Failure"
    assert "/no/such/program" in status["message"]


def test_much_output_comes_whole(pods: Pods, container: str, stream: Any) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo $i 0123456789012345678901234567890123456789; i=$((i+1)); done"
    with stream(exec_url(pods, container, "sh", "-c", script)) as talk:
        stdout, _, status = talk.end()
    assert [int(line.split()[0]) for line in stdout.splitlines()] == list(range(20000))
    assert code(status) == 0


def test_input_reaches_the_command(pods: Pods, container: str, stream: Any) -> None:
    with stream(exec_url(pods, container, "sh", "-c", "read a; echo got $a", stdin=True), stdin=True) as talk:
        talk.send(b"hello\n")
        assert talk.end()[0] == b"got hello\n"


def test_half_close_ends_the_commands_input_over_spdy(pods: Pods, container: str) -> None:
    with Spdy(exec_url(pods, container, "wc", "-c", stdin=True), stdin=True) as talk:
        talk.send(b"x" * 100_000)
        talk.send(b"y" * 11, fin=True)
        stdout, _, status = talk.end()
    assert (int(stdout), code(status)) == (100_011, 0)


@pytest.mark.differs("containerd", "1.6 does not know v5")
def test_half_close_ends_the_commands_input_over_websocket_v5(pods: Pods, container: str) -> None:
    with Socket(exec_url(pods, container, "wc", "-c", stdin=True), protocol=V5) as talk:
        assert talk.connection.subprotocol == V5
        talk.send(b"x" * 100_000)
        talk.send(b"y" * 11, fin=True)
        stdout, _, status = talk.end()
    assert (int(stdout), code(status)) == (100_011, 0)


@pytest.mark.differs("containerd", "it may lose the last words of a terminal")
def test_with_a_terminal_there_is_one(pods: Pods, container: str, stream: Any) -> None:
    url = exec_url(pods, container, "sh", "-c", "test -t 0 && test -t 1 && echo yes; sleep 0.2; exit 4", tty=True)
    with stream(url, tty=True) as talk:
        stdout, _, status = talk.end()
    assert (stdout, code(status)) == (b"yes\r\n", 4)


def test_a_terminal_is_resized(pods: Pods, container: str, stream: Any) -> None:
    script = "echo up; until [ \"$(stty size)\" = '40 132' ]; do sleep 0.05; done; echo resized"
    with stream(exec_url(pods, container, "sh", "-c", script, tty=True, stdin=True), stdin=True, tty=True) as talk:
        talk.wait_for(b"up")
        talk.resize(132, 40)
        stdout, _, status = talk.end()
    assert b"resized" in stdout
    assert code(status) == 0


def test_a_terminal_passes_on_what_is_typed(pods: Pods, container: str, stream: Any) -> None:
    with stream(exec_url(pods, container, "sh", tty=True, stdin=True), stdin=True, tty=True) as talk:
        talk.send(b"echo $((6*7))\nexit 9\n")
        stdout, _, status = talk.end()
    assert b"42\r\n" in stdout
    assert code(status) == 9


def test_a_grandchild_that_holds_the_output_does_not_hold_the_end(pods: Pods, container: str, stream: Any) -> None:
    if pods.runtime.name == "containerd":
        pytest.skip("differs: containerd: it waits for the grandchild")
    with stream(exec_url(pods, container, "sh", "-c", "sleep 1000 & echo done")) as talk:
        stdout, _, status = talk.end()
    assert (stdout, code(status)) == (b"done\n", 0)


def test_a_client_that_leaves_ends_the_commands_input(pods: Pods, container: str, stream: Any) -> None:
    with stream(exec_url(pods, container, "sh", "-c", "echo up; cat; touch /over", stdin=True), stdin=True) as talk:
        talk.wait_for(b"up")
    await_true(lambda: pods.exec(container, "test", "-e", "/over").exit_code == 0, "the command's end")


def test_the_first_message_is_empty_and_says_that_it_is_up(pods: Pods, container: str) -> None:
    with Socket(exec_url(pods, container, "echo", "x")) as talk:
        talk.end()
    assert talk.first == bytes([STDOUT])


# --- the URL


def test_a_url_is_good_for_one_request(pods: Pods, container: str) -> None:
    url = exec_url(pods, container, "true")
    with Spdy(url) as talk:
        talk.end()
    with pytest.raises(Refused, match="404"):
        SpdyClient(url, V4)


def test_a_url_of_no_token_is_not_found(pods: Pods, container: str) -> None:
    url = exec_url(pods, container, "true").rpartition("/")[0] + "/no-such-token"
    with pytest.raises(Refused, match="404"):
        SpdyClient(url, V4)


def test_urls_are_on_loopback(pods: Pods, container: str) -> None:
    assert exec_url(pods, container, "true").startswith("http://127.0.0.1:")


def test_no_common_protocol_is_refused(pods: Pods, container: str) -> None:
    with pytest.raises(Refused, match=r"403|400"):
        SpdyClient(exec_url(pods, container, "true"), "v99.channel.k8s.io")


def test_a_plain_request_is_refused(pods: Pods, container: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as failed:
        urllib.request.urlopen(exec_url(pods, container, "true"), timeout=10)
    assert failed.value.code in {400, 403}
    failed.value.close()


def test_pings_are_answered(pods: Pods, container: str) -> None:
    with Spdy(exec_url(pods, container, "cat", stdin=True), stdin=True) as talk:
        talk.client.ping(7)
        while not talk.client.pings:
            assert talk.client.read_frame()
        talk.send(b"", fin=True)
        talk.end()
    assert talk.client.pings == [7]


# --- what is refused by the call itself


def test_no_stream_at_all_is_refused(pods: Pods, container: str) -> None:
    with pytest.raises(grpc.RpcError):
        exec_url(pods, container, "true", stdout=False, stderr=False)


def test_a_terminal_has_no_stream_for_errors(pods: Pods, container: str) -> None:
    with pytest.raises(grpc.RpcError):
        exec_url(pods, container, "true", tty=True, stderr=True)


def test_only_what_runs_can_be_execd_into_or_attached_to(pods: Pods) -> None:
    created = pods.create(pods.run())
    for url in (exec_url, attach_url):
        with pytest.raises(grpc.RpcError):
            url(pods, created, "true") if url is exec_url else url(pods, created)


def test_what_is_unknown_is_not_found(pods: Pods) -> None:
    assert code_of(lambda: exec_url(pods, "0" * 64, "true")) == grpc.StatusCode.NOT_FOUND
    assert code_of(lambda: attach_url(pods, "0" * 64)) == grpc.StatusCode.NOT_FOUND


# --- attach


READER = ("sh", "-c", "while read line; do echo got $line; done; echo over; sleep 1000")


def test_attach_talks_to_the_containers_own_process(pods: Pods, stream: Any) -> None:
    container = pods.container(pods.run(), *READER, stdin=True)
    with stream(attach_url(pods, container, stdin=True), stdin=True) as talk:
        talk.send(b"one\n")
        talk.wait_for(b"got one\n")
    with stream(attach_url(pods, container, stdin=True), stdin=True) as talk:
        talk.send(b"two\n")
        talk.wait_for(b"got two\n")
    assert pods.log(container) == "got one\ngot two\n"


def test_with_stdin_once_the_first_client_that_ends_it_ends_it(pods: Pods) -> None:
    container = pods.container(pods.run(), *READER, stdin=True, stdin_once=True)
    with Spdy(attach_url(pods, container, stdin=True), stdin=True) as talk:
        talk.send(b"one\n", fin=True)
        talk.wait_for(b"over\n")


def test_an_attach_ends_with_the_container(pods: Pods, stream: Any) -> None:
    container = pods.container(pods.run(), "sh", "-c", "read a; echo bye", stdin=True)
    with stream(attach_url(pods, container, stdin=True), stdin=True) as talk:
        talk.send(b"go\n")
        stdout, _, status = talk.end()
    assert (stdout, status["status"]) == (b"bye\n", "Success")


def test_attach_to_a_terminal(pods: Pods, stream: Any) -> None:
    container = pods.container(pods.run(), "sh", stdin=True, tty=True)
    url = attach_url(pods, container, stdin=True, tty=True, stderr=False)
    with stream(url, stdin=True, tty=True) as talk:
        talk.resize(99, 33)
        talk.send(b"sleep 0.2; stty size; echo $((6*7))\n")
        talk.wait_for(b"33 99\r\n")
        talk.wait_for(b"42\r\n")


def test_attach_must_ask_for_the_terminal_that_there_is(pods: Pods, container: str) -> None:
    if pods.runtime.name == "containerd":
        pytest.skip("differs: containerd: it takes what the container has, and does not look at what is asked for")
    with pytest.raises(grpc.RpcError):
        attach_url(pods, container, tty=True, stderr=False)
