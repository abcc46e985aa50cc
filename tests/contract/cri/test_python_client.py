"""Kubernetes' own Python client talks to streaming URLs. It is made for an API server's, which passes bytes on."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from tests.peers.cri import Pods
from tests.peers.daemon import await_true
from tests.peers.streams import RESIZE, exec_url, forward_url

pytestmark = [pytest.mark.root, pytest.mark.peer]


@pytest.fixture
def container(pods: Pods) -> str:
    return pods.container(pods.run())


@contextmanager
def stream(url: str) -> Iterator[Any]:
    from kubernetes.client import Configuration
    from kubernetes.stream.ws_client import WSClient, get_websocket_url

    configuration = Configuration()
    configuration.proxy = None
    client = WSClient(configuration, get_websocket_url(url), {}, capture_all=True)
    yield client
    client.sock.shutdown()  # its own close() leaves a socket open that the other end has closed


def test_exec(pods: Pods, container: str) -> None:
    with stream(exec_url(pods, container, "sh", "-c", "echo out; echo err >&2; exit 3")) as talk:
        talk.run_forever(timeout=20)
        assert (talk.read_stdout(timeout=5), talk.read_stderr(timeout=5), talk.returncode) == ("out\n", "err\n", 3)


def test_exec_with_input(pods: Pods, container: str) -> None:
    with stream(exec_url(pods, container, "sh", "-c", "read a; echo got $a; read b", stdin=True)) as talk:
        talk.write_stdin("hello\n")
        assert talk.readline_stdout(timeout=20) == "got hello"
        talk.write_stdin("over\n")
        talk.run_forever(timeout=20)
        assert talk.returncode == 0


def test_exec_with_input_that_ends(pods: Pods, container: str) -> None:
    if pods.runtime.name == "containerd":
        pytest.skip("differs: containerd: 1.6 does not know v5")
    with stream(exec_url(pods, container, "wc", "-c", stdin=True)) as talk:
        talk.write_stdin("hello\n")
        talk.close_channel(0)
        talk.run_forever(timeout=20)
        assert (talk.read_stdout(timeout=5), talk.returncode) == ("6\n", 0)


def test_a_terminal_is_resized(pods: Pods, container: str) -> None:
    script = "echo up; until [ \"$(stty size 2>/dev/null)\" = '40 132' ]; do sleep 0.05; done; echo resized; read a"
    with stream(exec_url(pods, container, "sh", "-c", script, tty=True, stdin=True)) as talk:
        assert talk.readline_stdout(timeout=20) == "up\r"
        talk.write_channel(RESIZE, json.dumps({"Width": 132, "Height": 40}))
        assert talk.readline_stdout(timeout=20) == "resized\r"


def test_port_forward(pods: Pods) -> None:
    from kubernetes.client import Configuration
    from kubernetes.stream.ws_client import PortForward, create_websocket, get_websocket_url

    sandbox = pods.run()
    listener = pods.container(sandbox, "sh", "-c", "nc -ll -p 7000 -e cat")
    await_true(lambda: b":7000 " in pods.exec(listener, "netstat", "-ltn").stdout, "it to listen")
    configuration = Configuration()
    configuration.proxy = None
    connection = create_websocket(configuration, get_websocket_url(forward_url(pods.runtime, sandbox, 7000)))
    with closing(PortForward(connection, [7000])) as forward, closing(forward.socket(7000)) as client:
        client.settimeout(20)
        client.sendall(b"hello\n")
        assert client.recv(100) == b"hello\n"
        assert forward.error(7000) is None
    await_true(lambda: not forward.connected, "the client's thread to end")
