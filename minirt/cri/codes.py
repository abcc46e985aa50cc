"""Errors of the engine as gRPC's status codes, which is what kubelets look at."""

import grpc  # type: ignore[import-untyped]

from minirt.errors import (
    AlreadyExists,
    Conflict,
    ControllerMissing,
    InvalidInput,
    MinirtError,
    NotFound,
    TimedOut,
    Unsupported,
)

CODES: tuple[tuple[type[MinirtError], grpc.StatusCode], ...] = (
    (AlreadyExists, grpc.StatusCode.ALREADY_EXISTS),
    (Conflict, grpc.StatusCode.FAILED_PRECONDITION),
    (ControllerMissing, grpc.StatusCode.FAILED_PRECONDITION),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (Unsupported, grpc.StatusCode.UNIMPLEMENTED),
    (InvalidInput, grpc.StatusCode.INVALID_ARGUMENT),
    (TimedOut, grpc.StatusCode.DEADLINE_EXCEEDED),
)
LONGEST = 4000
"""Characters of a message: it travels in a header, and a client takes 8 KiB of headers."""


def of(error: MinirtError) -> tuple[grpc.StatusCode, str]:
    """Return the code and the text of an error; UNKNOWN, as containerd's, for what no code says better."""
    code = next((code for kind, code in CODES if isinstance(error, kind)), grpc.StatusCode.UNKNOWN)
    return code, str(error)[:LONGEST]
