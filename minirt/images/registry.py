"""A registry, read over HTTP: manifests and blobs, each verified by whoever takes them.

    GET /v2/<repository>/manifests/<tag or digest>
    GET /v2/<repository>/blobs/<digest>            (often redirected to a blob store; credentials stay behind)

HTTPS always, except to this machine itself. HTTPS_PROXY, HTTP_PROXY and NO_PROXY are respected.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import contextlib
import ipaddress
import json
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, SSLError
from urllib3.util import parse_url

from minirt.errors import DigestMismatch, NotFound, RegistryError
from minirt.images import auth
from minirt.images.auth import Credentials
from minirt.images.blobs import LARGEST_DOCUMENT, digest_of
from minirt.images.connections import Connections
from minirt.images.manifest import READABLE
from minirt.images.reference import DEFAULT_REGISTRY

HOSTS = {DEFAULT_REGISTRY: "registry-1.docker.io"}
TIMEOUT = urllib3.Timeout(connect=10, read=60)
RETRY = urllib3.Retry(
    total=6, connect=2, read=2, redirect=5, status=3, other=0, backoff_factor=0.2, status_forcelist=(502, 503, 504),
    raise_on_status=False,
)  # fmt: skip
PIECE_BYTES = 1 << 18


class Document(NamedTuple):
    """A manifest or an index as it came, and the digest of exactly these bytes."""

    data: bytes
    digest: str


class Registry:
    """One registry. May be used by several threads at once."""

    def __init__(self, host: str, *, plain_http: bool | None = None, credentials: Credentials | None = None) -> None:
        """Connect to nothing yet. ``plain_http`` None means: only to a loopback address."""
        plain = is_loopback(host) if plain_http is None else plain_http
        self._host = host
        self._base = f"{'http' if plain else 'https'}://{HOSTS.get(host, host)}"
        self._credentials = credentials
        self._connections = Connections()
        self._pool = self._connections.pool(self._base, direct=is_loopback(host))
        self._authorization: dict[str, str] = {}
        self._open: set[urllib3.BaseHTTPResponse] = set()

    def manifest(self, repository: str, target: str) -> Document:
        """Return what a tag or a digest names.

        Raises:
            NotFound: no such repository, or no such tag or digest in it.
            DigestMismatch: the bytes are not what the digest, or the registry's own header, says.
            RegistryError: it refused, or could not be reached.
        """
        what = f"pull {self._host}/{repository}{'@' if ':' in target else ':'}{target}"
        with self._get(f"/v2/{repository}/manifests/{target}", what, ", ".join(READABLE)) as response:
            data = b"".join(self._body(response, what, LARGEST_DOCUMENT))
            promised = target if ":" in target else response.headers.get("Docker-Content-Digest", "")
        found = digest_of(data)
        if promised.startswith("sha256:") and promised != found:
            raise DigestMismatch(
                what, f"the registry sent {found} for {promised}", "try again; if it stays, mistrust it"
            )
        return Document(data, found)

    @contextlib.contextmanager
    def blob(self, repository: str, digest: str) -> Iterator[Iterator[bytes]]:
        """Open a blob; the block gets its bytes in pieces, unverified. Raises as ``manifest`` does."""
        what = f"pull blob {digest[:19]} of {self._host}/{repository}"
        with self._get(f"/v2/{repository}/blobs/{digest}", what) as response:
            yield self._body(response, what)

    def abort(self) -> None:
        """End everything under way; whoever waits gets a RegistryError. Called from another thread."""
        self._connections.cut()
        for response in list(self._open):
            with contextlib.suppress(ValueError, RuntimeError, OSError):
                response.shutdown()

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    @contextlib.contextmanager
    def _get(self, path: str, what: str, accept: str = "*/*") -> Iterator[urllib3.BaseHTTPResponse]:
        response = self._send(self._base + path, what, {"Accept": accept, **self._authorization})
        if response.status == 401:
            response.drain_conn()
            self._authorization = self._log_in(response.headers.get("WWW-Authenticate", ""), what)
            response = self._send(self._base + path, what, {"Accept": accept, **self._authorization})
        self._open.add(response)
        try:
            if response.status != 200:
                raise self._refusal(response, what)
            yield response
        finally:
            self._open.discard(response)
            response.close()

    def _send(self, url: str, what: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(
                "GET", url, headers=headers, preload_content=False, decode_content=False, timeout=TIMEOUT, retries=RETRY
            )
        except HTTPError as error:
            if isinstance(getattr(error, "reason", None), SSLError):
                why = f"TLS failed: {_reason(error)}"
                raise RegistryError(what, why, "does it speak TLS? is its CA trusted here?") from error
            raise RegistryError(what, _reason(error), self._remedy()) from error

    def _remedy(self) -> str:
        if self._host == "localhost":
            return "names of localhost/ are of images made here: see minirt image import"
        return f"is {urlsplit(self._base).netloc} up, and is the way there open?"

    def _body(self, response: urllib3.BaseHTTPResponse, what: str, limit: int | None = None) -> Iterator[bytes]:
        got = 0
        try:
            for piece in response.stream(PIECE_BYTES, decode_content=False):
                got += len(piece)
                if limit is not None and got > limit:
                    raise RegistryError(what, f"the answer is longer than {limit} bytes", "name an image")
                yield piece
        except (HTTPError, OSError) as error:
            do = "pull again: what is complete is kept"
            raise RegistryError(what, f"the connection ended after {got} bytes: {_reason(error)}", do) from error

    def _log_in(self, challenge: str, what: str) -> dict[str, str]:
        def fetch(url: str, headers: dict[str, str]) -> bytes:
            response = self._send(url, what, headers)
            body = b"".join(self._body(response, what, LARGEST_DOCUMENT))
            if response.status != 200:
                raise RegistryError(what, f"its token server says {response.status}", "check user name and password")
            return body

        return auth.answer(challenge, self._credentials, fetch, secure=self._base.startswith("https:"))

    def _refusal(self, response: urllib3.BaseHTTPResponse, what: str) -> RegistryError | NotFound:
        """Return the error that a status and the registry's own words amount to."""
        code, message = _first_error(b"".join(self._body(response, what, LARGEST_DOCUMENT)))
        said = f"{self._host} says {message or code or response.reason} ({response.status})"
        if code == "NAME_UNKNOWN":
            return NotFound(what, f"{self._host} has no such repository", "check the name")
        if response.status == 404:
            return NotFound(what, f"{self._host} has no such tag or digest there", "check the tag")
        if response.status in (401, 403):
            return RegistryError(what, said, "it does not exist, or needs other credentials")
        if response.status == 429:
            return RegistryError(what, said, "it limits how often it is asked: wait, or log in")
        return RegistryError(what, said, "try again later")


def is_loopback(host: str) -> bool:
    """Say whether a registry's host (with or without a port) is this machine's loopback."""
    name = parse_url(f"http://{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _reason(error: Exception) -> str:
    """Return the innermost reason of urllib3's nested errors, without its objects' addresses."""
    while isinstance(getattr(error, "reason", None), Exception):
        error = error.reason  # type: ignore[attr-defined]
    said = str(error).rpartition(": ")[2] or type(error).__name__
    return re.sub(r"\[Errno -?\d+\] ", "", said)


def _first_error(body: bytes) -> tuple[str, str]:
    """Return (code, message) of a registry's JSON errors, empty where there are none."""
    try:
        first = json.loads(body)["errors"][0]
        return str(first.get("code", "")), str(first.get("message", ""))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "", ""
