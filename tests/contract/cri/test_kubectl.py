"""The real kubectl, over a WebSocket and over SPDY, as it exec's, attaches and forwards ports through an API server."""

import json
import os
import pty
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers.apiserver import ApiServer
from tests.peers.cri import Pods
from tests.peers.daemon import await_true, output

pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.needs("kubectl")]
TIMEOUT_S = 60
FIRST_WITH_WEBSOCKETS = 31
HOWS = {"websocket": "true", "SPDY/3.1": "false"}
SERVICE = ("sh", "-c", "echo ready; nc -ll -p 7000 -e cat & while read line; do echo got $line; done; exit 3")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def minor() -> int:
    """kubectl's version, without the 1."""
    told = json.loads(output("kubectl", "version", "--client", "--output", "json"))
    return int(told["clientVersion"]["minor"].rstrip("+"))


@pytest.fixture(params=HOWS)
def upgrade(request: pytest.FixtureRequest, minor: int) -> str:
    if request.param == "websocket" and minor < FIRST_WITH_WEBSOCKETS:
        pytest.skip(f"kubectl: 1.{minor} speaks SPDY only")
    return str(request.param)


@pytest.fixture
def server(pods: Pods, upgrade: str) -> Iterator[ApiServer]:
    """An API server with the pod "it"; containerd 1.6 speaks SPDY, and an older WebSocket than kubectl's."""
    if pods.runtime.name == "containerd" and upgrade == "websocket":
        pytest.skip("differs: containerd: 1.6 knows no v5.channel.k8s.io, and kubectl falls back to SPDY")
    sandbox = pods.run()
    container = pods.container(sandbox, *SERVICE, stdin=True)
    await_true(lambda: "ready" in pods.log(container), "it to be ready")
    server = ApiServer(pods.runtime, "it", sandbox, container)
    yield server
    server.close()


@pytest.fixture
def start(server: ApiServer, upgrade: str, tmp_path: Path) -> Start:
    """Start kubectl with these words."""
    flags = dict.fromkeys(("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"), HOWS[upgrade])
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **flags}

    def start(*words: str, **how: object) -> "subprocess.Popen[str]":
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
        return subprocess.Popen(["kubectl", "--server", server.url, *words], env=env, text=True, **how)  # type: ignore[call-overload, no-any-return]

    return start


def test_exec(start: Start, server: ApiServer, upgrade: str) -> None:
    with start("exec", "it", "--", "sh", "-c", "echo out; echo err >&2; exit 7") as kubectl:
        out, err = kubectl.communicate(timeout=TIMEOUT_S)
    assert (out, kubectl.returncode) == ("out\n", 7), err
    assert err.splitlines() == ["err", "command terminated with exit code 7"]
    assert server.upgrades == [upgrade]


def test_exec_with_input_to_its_end(start: Start) -> None:
    data = "".join(f"{number}\n" for number in range(20_000))
    with start("exec", "-i", "it", "--", "sh", "-c", "cat; echo over", stdin=subprocess.PIPE) as kubectl:
        out, err = kubectl.communicate(data, timeout=TIMEOUT_S)
    assert (out, err, kubectl.returncode) == (data + "over\n", "", 0)


def test_exec_with_a_terminal(start: Start) -> None:
    ours, theirs = pty.openpty()
    with start(
        "exec", "-it", "it", "--", "sh", "-c", "tty; exit 5", stdin=theirs, stdout=theirs, stderr=theirs
    ) as kubectl:
        os.close(theirs)
        seen = b""
        try:
            while piece := os.read(ours, 4096):
                seen += piece
        except OSError:
            pass  # how a terminal ends
    os.close(ours)
    assert b"/dev/pts/0" in seen
    assert kubectl.returncode == 5


def test_attach(start: Start) -> None:
    with start("attach", "-i", "it", stdin=subprocess.PIPE) as kubectl:
        assert kubectl.stdin and kubectl.stdout
        kubectl.stdin.write("hello\n")
        kubectl.stdin.flush()
        while kubectl.stdout.readline() != "got hello\n":
            pass
        kubectl.send_signal(signal.SIGINT)
        kubectl.communicate(timeout=TIMEOUT_S)


def test_port_forward(start: Start) -> None:
    with start("port-forward", "pod/it", ":7000") as kubectl:
        assert kubectl.stdout
        line = kubectl.stdout.readline()
        assert line.startswith("Forwarding from 127.0.0.1:"), line or kubectl.communicate()[1]
        port = int(line.split(" -> ")[0].rpartition(":")[2])
        for text in (b"one\n", b"two\n" * 10_000):
            with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as client:
                client.sendall(text)
                seen = b""
                while len(seen) < len(text):
                    seen += client.recv(1 << 16)
                assert seen == text
        kubectl.send_signal(signal.SIGINT)
        kubectl.communicate(timeout=TIMEOUT_S)


def test_copying(start: Start, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(os.urandom(300_000))
    for words in (("there", "it:/tmp/f"), ("it:/tmp/f", "back")):
        with start("cp", *words, cwd=tmp_path) as kubectl:
            _, err = kubectl.communicate(timeout=TIMEOUT_S)
        assert kubectl.returncode == 0, err
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()
