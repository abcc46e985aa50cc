"""Exec, attach, port-forward: over SPDY and WebSocket, with clients that know nothing of minirt."""

import contextlib
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from minirt.crimessages import api_pb2 as cri
from tests.contract.cri.conftest import code_of
from tests.peers.cri import MODE, Pods, Runtime
from tests.peers.daemon import await_true
from tests.peers.spdy import Refused, SpdyClient

pytestmark = [pytest.mark.root, pytest.mark.peer]
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
NO_NETWORK = cri.LinuxPodSandboxConfig(
    security_context=cri.LinuxSandboxSecurityContext(namespace_options=cri.NamespaceOption(network=MODE.NODE))
)


@pytest.fixture
def container(pods: Pods) -> str:
    return pods.container(pods.run())


def exec_url(pods: Pods, container: str, *command: str, tty: bool = False, **fields: Any) -> str:
    fields = {"stdout": True, "stderr": not tty} | fields
    request = cri.ExecRequest(container_id=container, cmd=command, tty=tty, **fields)
    return str(pods.runtime.Exec(request).url)


def attach_url(pods: Pods, container: str, **fields: Any) -> str:
    request = cri.AttachRequest(container_id=container, **{"stdout": True, "stderr": True} | fields)
    return str(pods.runtime.Attach(request).url)


class Spdy:
    """An exec or attach over SPDY."""

    def __init__(self, url: str, *, stdin: bool = False, tty: bool = False) -> None:
        self.client = SpdyClient(url, V4)
        names = ["error", "stdout"] + ["stdin"] * stdin + (["resize"] if tty else ["stderr"])
        self.streams = {name: self.client.open(streamtype=name) for name in names}

    def __enter__(self) -> "Spdy":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def send(self, data: bytes, *, fin: bool = False) -> None:
        self.client.send(self.streams["stdin"], data, fin=fin)

    def resize(self, width: int, height: int) -> None:
        self.client.send(self.streams["resize"], json.dumps({"Width": width, "Height": height}).encode() + b"\n")

    def wait_for(self, text: bytes) -> None:
        self.client.read_for(self.streams["stdout"], text)

    def end(self) -> tuple[bytes, bytes, dict[str, Any]]:
        """Wait for the end; return stdout, stderr, status."""
        while not {self.streams["error"], self.streams["stdout"]} <= self.client.ended and self.client.read_frame():
            pass  # containerd ends the connection, and not each stream
        found = {name: bytes(self.client.received[number]) for name, number in self.streams.items()}
        return found["stdout"], found.get("stderr", b""), json.loads(found["error"])


class Socket:
    """An exec or attach over a WebSocket."""

    def __init__(self, url: str, *, stdin: bool = False, tty: bool = False, protocol: str = V4) -> None:
        self._open = contextlib.ExitStack()
        where = url.replace("http:", "ws:")
        connecting = connect(where, subprotocols=[protocol], max_size=None, proxy=None, compression=None)
        self.connection: ClientConnection = self._open.enter_context(connecting)
        self.received = {number: bytearray() for number in range(5)}
        self.first: bytes | None = None

    def __enter__(self) -> "Socket":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def send(self, data: bytes, *, fin: bool = False) -> None:
        if data:
            self.connection.send(bytes([STDIN]) + data)
        if fin:
            self.connection.send(bytes([255, STDIN]))

    def resize(self, width: int, height: int) -> None:
        self.connection.send(bytes([RESIZE]) + json.dumps({"Width": width, "Height": height}).encode())

    def _read(self) -> None:
        message = self.connection.recv(timeout=20)
        assert isinstance(message, bytes)
        self.first = message if self.first is None else self.first
        self.received[message[0]] += message[1:]

    def wait_for(self, text: bytes) -> None:
        while text not in self.received[STDOUT]:
            self._read()

    def end(self) -> tuple[bytes, bytes, dict[str, Any]]:
        """Wait for the end; return stdout, stderr, status."""
        try:
            while True:
                self._read()
        except ConnectionClosed:
            pass
        return bytes(self.received[STDOUT]), bytes(self.received[STDERR]), json.loads(self.received[ERROR])


@pytest.fixture(params=[Spdy, Socket])
def stream(request: pytest.FixtureRequest) -> Any:
    return request.param


def code(status: dict[str, Any]) -> int:
    """Return the exit code that a Status tells."""
    if status["status"] == "Success":
        return 0
    assert status["reason"] == "NonZeroExitCode"
    return int(next(cause["message"] for cause in status["details"]["causes"] if cause["reason"] == "ExitCode"))


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


# --- port-forward


@pytest.fixture
def echo(pods: Pods) -> Iterator[str]:
    """A sandbox in which port 7000 of localhost answers with what it is sent."""
    sandbox = pods.run()
    pods.container(sandbox, "sh", "-c", "nc -ll -p 7000 -e cat")
    container = pods.container(sandbox)
    await_true(lambda: b":7000 " in pods.exec(container, "netstat", "-ltn").stdout, "it to listen")
    yield sandbox


def forward_url(runtime: Runtime, sandbox: str, *ports: int) -> str:
    return str(runtime.PortForward(cri.PortForwardRequest(pod_sandbox_id=sandbox, port=ports)).url)


def test_a_port_is_forwarded_over_spdy(pods: Pods, echo: str) -> None:
    with SpdyClient(forward_url(pods.runtime, echo, 7000), "portforward.k8s.io") as client:
        assert client.headers["x-stream-protocol-version"] == "portforward.k8s.io"
        for number in range(2):
            error = client.open(streamtype="error", port="7000", requestid=str(number))
            data = client.open(streamtype="data", port="7000", requestid=str(number))
            client.send(error, b"", fin=True)
            client.send(data, b"x" * 30_000)
            client.send(data, b"over\n", fin=True)
            client.read_until_end(data, error)
            assert client.received[data] == b"x" * 30_000 + b"over\n"
            assert client.received[error] == b""


def test_a_port_that_nobody_listens_on_is_told_on_the_error_stream(pods: Pods) -> None:
    sandbox = pods.run()
    with SpdyClient(forward_url(pods.runtime, sandbox, 7001), "portforward.k8s.io") as client:
        error = client.open(streamtype="error", port="7001", requestid="0")
        data = client.open(streamtype="data", port="7001", requestid="0")
        client.send(data, b"hello")
        client.read_until_end(error)
        assert b"7001" in client.received[error]


def test_a_port_is_forwarded_over_websocket(pods: Pods, echo: str) -> None:
    url = forward_url(pods.runtime, echo, 7000).replace("http:", "ws:")
    with connect(url, subprotocols=[V4], proxy=None, compression=None) as connection:
        assert sorted(connection.recv(timeout=10) for _ in range(2)) == [b"\x00\x58\x1b", b"\x01\x58\x1b"]
        connection.send(b"\x00hello\n")
        assert connection.recv(timeout=10) == b"\x00hello\n"


def test_a_port_of_the_nodes_network_is_forwarded(pods: Pods) -> None:
    sandbox = pods.run(hostname="", linux=NO_NETWORK)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        with SpdyClient(forward_url(pods.runtime, sandbox, int(port)), "portforward.k8s.io") as client:
            client.open(streamtype="error", port=port, requestid="0")
            data = client.open(streamtype="data", port=port, requestid="0")
            client.send(data, b"hello", fin=True)
            peer, _ = listener.accept()
            with peer:
                assert peer.recv(100) == b"hello"
                peer.sendall(b"answer")
            client.read_until_end(data)
            assert client.received[data] == b"answer"


def test_a_stopped_sandbox_has_no_ports(pods: Pods) -> None:
    sandbox = pods.run()
    pods.stop(sandbox)
    with pytest.raises(grpc.RpcError):
        forward_url(pods.runtime, sandbox, 80)
    assert code_of(lambda: forward_url(pods.runtime, "0" * 64, 80)) == grpc.StatusCode.NOT_FOUND
