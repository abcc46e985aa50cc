"""Image names as docker and Kubernetes read them.

    host:5000/team/app:1.2@sha256:…      registry / repository : tag @ digest
    team/app                          =  docker.io/team/app:latest
    busybox                           =  docker.io/library/busybox:latest
    localhost/busybox                 =  localhost/busybox:latest

The first part is a registry's host if it has a dot, a port or a capital letter, or is "localhost".

Source: https://github.com/distribution/reference (grammar in reference.go, defaults in normalize.go)
"""

import re

from msgspec import Struct

from minirt.errors import InvalidInput

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
LONGEST_NAME = 255
LONGEST_SHOWN = 60
"""How many characters before and after a fault are shown."""

_HOST_PART = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DIGEST_BEGUN = re.compile(r"sha256:[0-9a-f]{0,64}|sha256|sha25|sha2|sha|sh|s|")
_HEX_ID = re.compile(r"[0-9a-f]{64}")


class Reference(Struct, frozen=True):
    """Where an image is: ``tag`` is None only where a digest was given without one."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Return the reference that ``text`` means, defaults filled in.

        Raises:
            InvalidInput: it is none; the message points at the first character that cannot be.
        """
        if _HEX_ID.fullmatch(text):
            why = "64 hexadecimal digits are an image's id"
            raise InvalidInput(f"read the image name {text!r}", why, "name it by id")
        rest, at_sign, digest = text.partition("@")
        if at_sign:
            _expect(text, _DIGEST, digest, len(rest) + 1, "a digest is sha256: and 64 hexadecimal digits")
        host, rest, start = _split_host(rest)
        name, colon, tag = rest.partition(":")
        if colon:
            _expect(text, _TAG, tag, start + len(name) + 1, "a tag has letters, digits, '_', '.', '-', at most 128")
        _check_name(text, name, start)
        registry, name = _with_defaults(host, name)
        if len(name) > LONGEST_NAME:
            why = f"its repository is longer than {LONGEST_NAME} characters"
            raise InvalidInput(f"read the image name {text[:40]!r}…", why)
        return cls(registry, name, tag or (None if digest else DEFAULT_TAG), digest or None)

    @property
    def name(self) -> str:
        """Return registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def tagged(self) -> str | None:
        """Return the name with its tag, without a digest; None where there is no tag."""
        return f"{self.name}:{self.tag}" if self.tag else None

    @property
    def target(self) -> str:
        """Return what to ask the registry for: the digest if there is one, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def checked_registry(text: str) -> str:
    """Return a registry's host as references have it. Raises InvalidInput: it is none."""
    _expect(text, _HOST, text, 0, "a registry is a host name or address, and perhaps a port")
    return DEFAULT_REGISTRY if text in ("index.docker.io", "registry-1.docker.io") else text


def _split_host(text: str) -> tuple[str, str, int]:
    """Return (host or "", the rest, where the rest begins)."""
    first, slash, rest = text.partition("/")
    is_host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not is_host:
        return "", text, 0
    _expect(text, _HOST, first, 0, "a registry is a host name or address, and perhaps a port")
    return first, rest, len(first) + 1


def _check_name(text: str, name: str, start: int) -> None:
    why = (
        "a repository has lower case letters and digits, with '.', '_', '__' or '-' between them, and '/' between parts"
    )
    _expect(text, _REPOSITORY, name, start, why)


def _with_defaults(host: str, name: str) -> tuple[str, str]:
    registry = DEFAULT_REGISTRY if host in {"", "index.docker.io"} else host
    if registry == DEFAULT_REGISTRY and "/" not in name:
        name = f"library/{name}"
    return registry, name


def _expect(text: str, pattern: re.Pattern[str], part: str, start: int, rule: str) -> None:
    """Raise InvalidInput pointing at the first character of ``part`` that ``pattern`` does not take."""
    if pattern.fullmatch(part):
        return
    begun = (_DIGEST_BEGUN if pattern is _DIGEST else pattern).match(part)
    taken = begun.end() if begun else 0
    at = start + taken
    if taken < len(part):
        why = f"character {at + 1}, {text[at]!r}, cannot be there"
    elif at < len(text):
        why = f"it ends too soon, before character {at + 1}, {text[at]!r}"
    else:
        why = f"it ends too soon, after character {at}" if text else "it is empty"
    error = InvalidInput(f"read the image name {text!r}", why, rule)
    error.shown = _pointed(text, at)
    raise error


def _pointed(text: str, at: int) -> str:
    """Return the name with a caret under one of its characters; what has no certain width is shown as "?"."""
    plain = "".join(char if " " <= char <= "~" else "?" for char in text)
    start = max(0, at - LONGEST_SHOWN)
    return f"    {plain[start : at + LONGEST_SHOWN]}\n    {' ' * (at - start)}^"
