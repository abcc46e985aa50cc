"""How to answer a registry's 401: with a password, or with a token from the server it names.

    GET /v2/x/manifests/y ──▶ 401  WWW-Authenticate: Bearer realm="https://auth…",service="…",scope="…"
    GET realm?service&scope (with the password, if there is one) ──▶ {"token": "…", "expires_in": 300}
    GET /v2/x/manifests/y  Authorization: Bearer … ──▶ 200

With an identity token it is asked as OAuth 2 has it: POST realm, grant_type=refresh_token.

Source: distribution's docs/spec/auth/token.md and oauth.md; RFC 7617 (Basic); RFC 7235 section 4.1
"""

import base64
import time
from typing import NamedTuple, Protocol
from urllib.parse import urlencode, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

import msgspec
from msgspec import Struct

from minirt import decoding
from minirt.errors import RegistryError
from minirt.images.credentials import Credentials

CLIENT_ID = "minirt"
SHORTEST_S = 60
"""How long a token lives whose server does not say, and the least that is believed, in seconds (token.md)."""
MARGIN_S = 10


class Fetch(Protocol):
    """Asks a token server: GET, or POST where there is a body; returns the answer's body."""

    def __call__(self, url: str, headers: dict[str, str], body: bytes | None) -> bytes:
        """Ask it. Raises RegistryError: it refuses, or cannot be reached."""
        ...


class Challenge(NamedTuple):
    """What a 401 asks for: ``basic`` or ``bearer``, and for this where to get a token, and for what."""

    scheme: str
    realm: str = ""
    service: str = ""
    scopes: tuple[str, ...] = ()


class Answer(NamedTuple):
    """The headers that go with a request, and until when (of the monotonic clock, in seconds)."""

    headers: dict[str, str]
    until: float = float("inf")

    def is_valid(self) -> bool:
        """Say whether they can be used now."""
        return time.monotonic() < self.until


class _Token(Struct):
    token: str = ""
    access_token: str = ""
    expires_in: int = SHORTEST_S


def read(headers: list[str]) -> Challenge:
    """Return what the WWW-Authenticate headers of a 401 ask for; a token where there is a choice.

    Raises:
        RegistryError: nothing of it is understood.
    """
    found = dict(_read(header) for header in headers)
    if not found.keys() & {"basic", "bearer"}:
        asked = ", ".join(header.partition(" ")[0] for header in headers) or "nothing known"
        raise RegistryError("log in", f"the registry asks for {asked}", "Basic and Bearer work")
    return found.get("bearer") or found["basic"]


def _read(header: str) -> tuple[str, Challenge]:
    scheme, _, rest = header.strip().partition(" ")
    values = parse_keqv_list([item for item in parse_http_list(rest) if "=" in item])
    scopes = tuple(values.get("scope", "").split())
    return scheme.lower(), Challenge(scheme.lower(), values.get("realm", ""), values.get("service", ""), scopes)


def answer(challenge: Challenge, credentials: Credentials | None, fetch: Fetch, *, secure: bool) -> Answer:
    """Return what answers a challenge. ``secure``: the registry was reached over TLS, so no password goes in the clear.

    Raises:
        RegistryError: it wants a password and there is none, or its token server is of no use.
    """
    if credentials and credentials.registry_token:
        return _bearer(credentials.registry_token)
    if challenge.scheme == "basic":
        if not credentials or not credentials.user:
            raise RegistryError("log in", "the registry wants a user name and a password", "see minirt login")
        return Answer(_basic(credentials))
    if urlsplit(challenge.realm).scheme not in ("https", "https" if secure else "http"):
        why = f"the registry sends us to {challenge.realm!r} for a token"
        raise RegistryError("log in", why, "it must be an https address")
    body = _ask(challenge, credentials, fetch)
    try:
        found = decoding.from_json(body, _Token)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = _Token()
    if not (found.token or found.access_token):
        raise RegistryError("log in", "the token server's answer holds no token", "try again later")
    lives_s = max(found.expires_in, SHORTEST_S) - MARGIN_S
    return _bearer(found.token or found.access_token)._replace(until=time.monotonic() + lives_s)


def _ask(challenge: Challenge, credentials: Credentials | None, fetch: Fetch) -> bytes:
    if credentials and credentials.identity_token:
        form = {
            "grant_type": "refresh_token",
            "service": challenge.service,
            "client_id": CLIENT_ID,
            "scope": " ".join(challenge.scopes),
            "refresh_token": credentials.identity_token,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return fetch(challenge.realm, headers, urlencode(form).encode())
    query = [("service", challenge.service)] if challenge.service else []
    query += [("scope", scope) for scope in challenge.scopes]
    mark = "&" if "?" in challenge.realm else "?"
    return fetch(f"{challenge.realm}{mark}{urlencode(query)}", _basic(credentials) if credentials else {}, None)


def _basic(credentials: Credentials) -> dict[str, str]:
    packed = base64.b64encode(f"{credentials.user}:{credentials.password}".encode()).decode()
    return {"Authorization": f"Basic {packed}"}


def _bearer(token: str) -> Answer:
    return Answer({"Authorization": f"Bearer {token}"})
