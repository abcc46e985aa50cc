"""The older protocols of exec and attach, and those in text: what each has of the last word, and of a terminal."""

from typing import Any

import pytest

from tests.peers.cri import Pods
from tests.peers.streams import V1, V2, V3, V4, Socket, Spdy, attach_url, code, exec_url

pytestmark = [pytest.mark.root, pytest.mark.peer]
BASE64, V4_BASE64 = "base64.channel.k8s.io", "v4.base64.channel.k8s.io"
SCRIPT = ("sh", "-c", "read a; echo got $a; echo err >&2; exit $a")


@pytest.fixture
def container(pods: Pods) -> str:
    return pods.container(pods.run())


@pytest.mark.parametrize(
    ("client", "protocol"),
    [(Spdy, ""), (Spdy, V1), (Spdy, V2), (Spdy, V3), (Socket, ""), (Socket, V1), (Socket, BASE64)],
)
def test_before_v4_the_last_word_is_a_message(pods: Pods, container: str, client: Any, protocol: str) -> None:
    _skip_no_name(pods, protocol)
    for number in (0, 3):
        with client(exec_url(pods, container, *SCRIPT, stdin=True), stdin=True, protocol=protocol) as talk:
            talk.send(f"{number}\n".encode())
            stdout, stderr, last = talk.end_before_v4()
        assert (stdout, stderr) == (f"got {number}\n".encode(), b"err\n")
        if number == 0:
            assert last == b""
        elif not (pods.runtime.name == "containerd" and client is Spdy and protocol == V1):
            assert b"exit" in last  # containerd closes v1's stream for it as soon as it is opened
            assert last.endswith(b"3")


def _skip_no_name(pods: Pods, protocol: str) -> None:
    if not protocol and pods.runtime.name == "containerd":
        pytest.skip("differs: containerd: it refuses it over SPDY, and answers a WebSocket with a name of no letters")


def test_v4_in_text_has_the_exit_code(pods: Pods, container: str) -> None:
    with Socket(exec_url(pods, container, *SCRIPT, stdin=True), protocol=V4_BASE64) as talk:
        assert talk.connection.subprotocol == V4_BASE64
        talk.send(b"42\n")
        stdout, stderr, status = talk.end()
    assert (stdout, stderr, code(status)) == (b"got 42\n", b"err\n", 42)


@pytest.mark.parametrize(("client", "protocol"), [(Spdy, V3), (Socket, ""), (Socket, V4_BASE64)])
def test_a_terminal_is_resized(pods: Pods, container: str, client: Any, protocol: str) -> None:
    _skip_no_name(pods, protocol)
    script = "echo up; until [ \"$(stty size 2>/dev/null)\" = '40 132' ]; do sleep 0.05; done; echo resized"
    url = exec_url(pods, container, "sh", "-c", script, tty=True, stdin=True)
    with client(url, stdin=True, tty=True, protocol=protocol) as talk:
        talk.wait_for(b"up")
        talk.resize(132, 40)
        talk.wait_for(b"resized")


def test_attach_in_text(pods: Pods) -> None:
    container = pods.container(pods.run(), "sh", "-c", "read a; echo bye $a; sleep 1000", stdin=True)
    with Socket(attach_url(pods, container, stdin=True), protocol=BASE64) as talk:
        talk.send(b"now\n")
        talk.wait_for(b"bye now\n")


def test_what_is_no_base64_ends_the_stream(pods: Pods, container: str) -> None:
    if pods.runtime.name == "containerd":
        pytest.skip("differs: containerd: it goes on")
    with Socket(exec_url(pods, container, "cat", stdin=True), protocol=V4_BASE64) as talk:
        talk.connection.send("0!!!")
        assert talk.end_before_v4()[2] == b""


def test_v4_is_preferred(pods: Pods, container: str) -> None:
    with Spdy(exec_url(pods, container, "true"), protocol=f"{V4}, {V3}, {V1}") as talk:
        assert talk.client.headers["x-stream-protocol-version"] == V4
