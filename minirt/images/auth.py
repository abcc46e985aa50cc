"""How to answer a registry's 401: with a password, or with a token from the server it names.

    GET /v2/x/manifests/y ──▶ 401  WWW-Authenticate: Bearer realm="https://auth…",service="…",scope="…"
    GET realm?service&scope (with the password, if there is one) ──▶ {"token": "…"}
    GET /v2/x/manifests/y  Authorization: Bearer … ──▶ 200

Source: distribution's docs/spec/auth/token.md; RFC 7617 (Basic)
"""

import json
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

from urllib3.util import make_headers

from minirt.errors import RegistryError

Fetch = Callable[[str, dict[str, str]], bytes]


class Credentials(NamedTuple):
    """A user's name and password (or access token) at one registry."""

    user: str
    password: str

    def header(self) -> dict[str, str]:
        """Return the Basic authorization header."""
        return make_headers(basic_auth=f"{self.user}:{self.password}")


def answer(challenge: str, credentials: Credentials | None, fetch: Fetch, *, secure: bool) -> dict[str, str]:
    """Return the headers that answer ``challenge``, the WWW-Authenticate header of a 401.

    ``fetch`` gets a URL with headers; ``secure`` says that the registry was reached over TLS: then the password
    goes nowhere in the clear.

    Raises:
        RegistryError: it wants a password and there is none, or something that is not understood.
    """
    scheme, _, rest = challenge.partition(" ")
    if scheme.lower() == "basic" and credentials:
        return credentials.header()
    if scheme.lower() == "basic":
        raise RegistryError("log in", "the registry wants a user name and a password", "give it credentials")
    if scheme.lower() != "bearer":
        raise RegistryError("log in", f"the registry asks for {scheme or 'nothing known'}", "Basic and Bearer work")
    values = parse_keqv_list(parse_http_list(rest))
    realm = values.pop("realm", "")
    if urlsplit(realm).scheme not in ("https", "http" if not secure else "https"):
        raise RegistryError("log in", f"the registry sends us to {realm!r} for a token", "it must be an https address")
    query = urlencode([(key, values[key]) for key in ("service", "scope") if key in values])
    return _bearer(fetch(f"{realm}?{query}", credentials.header() if credentials else {}))


def _bearer(body: bytes) -> dict[str, str]:
    try:
        found = json.loads(body)
        token = found.get("token") or found["access_token"]
    except (ValueError, KeyError, AttributeError) as error:
        raise RegistryError("log in", "the token server's answer holds no token", "try again later") from error
    return {"Authorization": f"Bearer {token}"}
