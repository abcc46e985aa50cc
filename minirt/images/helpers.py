"""Credential helpers: programs ``docker-credential-<name>`` that keep secrets in a keychain.

    get     stdin: the registry                             stdout: {"ServerURL", "Username", "Secret"}
    store   stdin: {"ServerURL", "Username", "Secret"}
    erase   stdin: the registry
    exit 1, stdout "credentials not found in native keychain": there are none

Source: https://github.com/docker/docker-credential-helpers, README
"""

import json
import subprocess

import msgspec
from msgspec import Struct

from minirt import decoding
from minirt.errors import InvalidInput
from minirt.paths import is_id

TIMEOUT_S = 60
"""Some ask a person, or a cloud."""
NOT_FOUND = "credentials not found"


class _Answer(Struct, rename="pascal"):
    username: str
    secret: str


def program(name: str) -> str:
    """Return the program of the helper ``name``. Raises InvalidInput: that is no name."""
    if not is_id(name):
        raise InvalidInput(f"use the credential helper {name!r}", "that is no name of one", "for example: pass")
    return f"docker-credential-{name}"


def get(name: str, server: str) -> tuple[str, str] | None:
    """Return (user, secret) for a server, None where the helper has none. Raises InvalidInput: it fails."""
    done = _run(name, "get", server)
    if done.returncode:
        if NOT_FOUND in done.stdout + done.stderr:
            return None
        raise _failed(name, "get", done)
    try:
        answer = decoding.from_json(done.stdout, _Answer)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidInput(f"get credentials from {program(name)}", f"its answer is none: {error}") from error
    return answer.username, answer.secret


def store(name: str, server: str, user: str, secret: str) -> None:
    """Give a secret to a helper. Raises InvalidInput: it fails."""
    done = _run(name, "store", json.dumps({"ServerURL": server, "Username": user, "Secret": secret}))
    if done.returncode:
        raise _failed(name, "store", done)


def erase(name: str, server: str) -> None:
    """Have a helper forget a server's secret. Raises InvalidInput: it fails."""
    done = _run(name, "erase", server)
    if done.returncode and NOT_FOUND not in done.stdout + done.stderr:
        raise _failed(name, "erase", done)


def _run(name: str, verb: str, given: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            [program(name), verb], input=given, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(f"run {program(name)}", why, "install it, or take it out of config.json") from error


def _failed(name: str, verb: str, done: "subprocess.CompletedProcess[str]") -> InvalidInput:
    said = (done.stdout.strip() or done.stderr.strip() or f"exit {done.returncode}")[:500]
    return InvalidInput(f"run {program(name)} {verb}", said, "see to the helper, or take it out of config.json")
