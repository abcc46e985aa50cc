import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from minirt import paths
from minirt.cgroups.resources import Memory, Resources
from minirt.errors import Conflict, MinirtError, ShimError
from minirt.linux import sockets
from minirt.oci.spec import Process
from minirt.shim import protocol
from minirt.shim.client import ShimClient
from minirt.shim.protocol import Answer, Envelope
from minirt.shim.server import Shim, listen

REQUESTS = [
    protocol.MakeSandbox(("network",), "box", "pod1", resources=Resources(memory=Memory(limit=1))),
    protocol.Create("c", "/bundle", protocol.Overlay(("/a", "/b"), "/up", "/work"), log_path="/log", cause="x"),
    protocol.Start("c"),
    protocol.Attach("c", once=True),
    protocol.Exec("c", "s", Process(("sh", "-c", "true"), env=("A=b",))),
    protocol.Kill("c", 9, "s"),
    protocol.Stop("c", 15, 1.5),
    protocol.Wait("c", caretaker=True),
    protocol.Delete("c"),
    protocol.List(),
    protocol.ReopenLog("c"),
    protocol.Subscribe(),
    protocol.Shutdown(),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: type(one).__name__)
def test_there_and_back(request_: protocol.AnyRequest) -> None:
    envelope = Envelope(7, protocol.VERSION, request_)
    assert protocol.decode_request(protocol.encode(envelope)) == envelope


def test_every_request_is_tried_here_and_has_a_handler() -> None:
    kinds = set(get_args(protocol.AnyRequest))
    assert {type(one) for one in REQUESTS} == kinds
    assert all(hasattr(Shim, f"_on_{kind.__name__.lower()}") for kind in kinds)


@pytest.mark.parametrize("answer", [Answer(1, ok={"pid": 4}), Answer(2, error={"class": "Conflict"}), Answer(event={})])
def test_answers_there_and_back(answer: Answer) -> None:
    assert protocol.decode_answer(protocol.encode(answer)) == answer


def test_a_field_of_a_newer_version_is_no_matter() -> None:
    wire = msgspec.json.decode(protocol.encode(Envelope(1, 1, protocol.Start("c"))))
    wire["request"]["later"] = True
    assert protocol.decode_request(msgspec.json.encode(wire)).request == protocol.Start("c")


@pytest.mark.parametrize(
    "old",
    [
        '{"id":1,"v":1,"request":{"op":"List"}}',
        '{"id":1,"v":1,"request":{"op":"Stop","container":"c","signal":15,"grace_s":1}}',
        '{"id":1,"v":1,"request":{"op":"Wait","container":"c"}}',
        '{"id":1,"v":1,"request":{"op":"Shutdown"}}',
    ],
)
def test_what_keeps_its_form_for_ever(old: str) -> None:
    assert protocol.decode_request(old).id == 1


@pytest.mark.parametrize(
    "text", ["", "{", "{}", '{"id":1,"v":1,"request":{"op":"Explode"}}', '{"id":1,"v":1,"request":{}}']
)
def test_no_request(text: str) -> None:
    with pytest.raises(ValueError):
        protocol.decode_request(text)


class TestClient:
    """The client's side, against a socket where the shim would listen."""

    @pytest.fixture
    def ends(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ShimClient, socket.socket]]:
        monkeypatch.setenv("MINIRT_STATE", str(tmp_path / ("long" * 30)))
        paths.sandbox_dir("s").mkdir(parents=True)
        with listen("s") as listener, ShimClient("s") as client:
            shim, _ = listener.accept()
            with shim:
                yield client, shim

    @staticmethod
    def answered(shim: socket.socket, *answers: Answer) -> None:
        for answer in answers:
            sockets.send(shim, protocol.encode(answer))

    def test_an_answer(self, ends: tuple[ShimClient, socket.socket]) -> None:
        client, shim = ends
        self.answered(shim, Answer(event={"container": "c"}), Answer(1, ok={"pid": 4}))
        assert client.call(protocol.Start("c")) == {"pid": 4}
        data, _ = sockets.receive(shim)
        assert protocol.decode_request(data) == Envelope(1, protocol.VERSION, protocol.Start("c"))

    def test_an_error_is_raised_as_itself(self, ends: tuple[ShimClient, socket.socket]) -> None:
        client, shim = ends
        self.answered(shim, Answer(1, error=Conflict("start c", "it is running").to_wire()))
        with pytest.raises(Conflict, match="it is running"):
            client.call(protocol.Start("c"))

    def test_descriptors_that_nobody_asked_for_are_closed(self, ends: tuple[ShimClient, socket.socket]) -> None:
        client, shim = ends
        with open("/dev/null") as null:
            sockets.send(shim, protocol.encode(Answer(1, ok={})), [null.fileno()])
            assert client.call(protocol.Start("c")) == {}

    def test_a_shim_that_cannot_read_the_request(self, ends: tuple[ShimClient, socket.socket]) -> None:
        client, shim = ends
        self.answered(shim, Answer(error=ShimError("read a request", "?").to_wire()))
        with pytest.raises(ShimError, match="read a request"):
            client.call(protocol.List())

    def test_a_shim_that_ends(self, ends: tuple[ShimClient, socket.socket]) -> None:
        client, shim = ends
        shim.close()
        with pytest.raises(ShimError, match="it has ended"):
            client.call(protocol.List())

    def test_an_event(self, ends: tuple[ShimClient, socket.socket]) -> None:
        client, shim = ends
        self.answered(shim, Answer(event={"container": "c", "state": "exited"}))
        assert client.next_event() == {"container": "c", "state": "exited"}


def test_no_shim_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIRT_STATE", str(tmp_path))
    with pytest.raises(ShimError):
        ShimClient("s")
    paths.sandbox_dir("s").mkdir(parents=True)
    listen("s").close()
    with pytest.raises(ShimError, match="it has ended"):
        ShimClient("s")


@pytest.mark.parametrize("kind", [ShimError, Conflict, MinirtError])
def test_errors_on_the_wire(kind: type[MinirtError]) -> None:
    wire: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(kind("a", "b", "c").to_wire()))
    assert wire == {"class": kind.__name__, "what": "a", "why": "b", "do": "c"}
