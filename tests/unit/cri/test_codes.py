"""Errors as gRPC's status codes, and URLs' tokens."""

import grpc
import pytest

from minirt import errors
from minirt.cri import codes
from minirt.cri.streaming import server
from minirt.cri.streaming.server import Ports, Tokens
from minirt.engine.records import SandboxConfig, SandboxRecord

CODE = grpc.StatusCode
PORTS = Ports(SandboxRecord("1", SandboxConfig("a", "b"), "boot", "ready", 1), (80,))


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.NotFound, CODE.NOT_FOUND),
        (errors.AlreadyExists, CODE.ALREADY_EXISTS),
        (errors.Conflict, CODE.FAILED_PRECONDITION),
        (errors.InvalidInput, CODE.INVALID_ARGUMENT),
        (errors.Unsupported, CODE.UNIMPLEMENTED),
        (errors.TimedOut, CODE.DEADLINE_EXCEEDED),
        (errors.StepFailed, CODE.UNKNOWN),
    ],
)
def test_each_error_has_its_code(kind: type[errors.MinirtError], code: CODE) -> None:
    assert codes.of(kind("do it", "it is so", "do that")) == (code, "cannot do it: it is so (do that)")


def test_a_long_text_is_cut_for_it_travels_in_a_header() -> None:
    assert len(codes.of(errors.MinirtError("do", "x" * 100_000))[1]) == codes.LONGEST


def test_a_token_is_good_once() -> None:
    tokens = Tokens()
    token = tokens.add(PORTS)
    assert tokens.take(token) == PORTS
    assert tokens.take(token) is None
    assert tokens.take("another") is None


def test_a_token_is_good_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LIFETIME_S", -1.0)
    tokens = Tokens()
    assert tokens.take(tokens.add(PORTS)) is None


def test_not_too_many_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_TOKENS", 2)
    tokens = Tokens()
    tokens.add(PORTS)
    tokens.add(PORTS)
    with pytest.raises(errors.Conflict):
        tokens.add(PORTS)
