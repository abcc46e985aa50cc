"""One server that speaks for a registry: requests to it, with what must go with them, repeated while there is hope.

    401                          answered once with a password or a token; a token is renewed before it expires
    408 429 500 502 503 504      asked again, after as long as Retry-After says, or 0.2, 0.4, 0.8 … seconds
    a broken connection          likewise
    a redirect                   followed; to another host go no Authorization, no headers and no certificate of ours

Source: distribution-spec; RFC 9110 sections 10.2.3 (Retry-After) and 15.4 (redirects); RFC 6585 section 4
"""

import contextlib
import datetime
import email.utils
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InsecureRequestWarning,
    NameResolutionError,
    NewConnectionError,
    SSLError,
)

from minirt.errors import InvalidInput, RegistryError
from minirt.images import auth
from minirt.images.auth import Answer, Challenge
from minirt.images.connections import Connections
from minirt.images.credentials import Credentials
from minirt.images.hosts import Host, is_loopback

Response = urllib3.BaseHTTPResponse
Body = Callable[[], bytes | Iterator[bytes]]
"""Gives a request's body, anew each time it is sent; pieces need a Content-Length."""

SILENCE_S = 60.0
"""How long a server may say nothing, in seconds."""
NO_RETRY = urllib3.Retry(total=0, redirect=0, status=0, raise_on_status=False, raise_on_redirect=False)
PASSING = frozenset({408, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
ATTEMPTS = 5
CONNECTING_ATTEMPTS = 3
MOST_REDIRECTS = 5
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 60.0
"""What a server may ask us to wait; when it wants more, that is its answer."""
LONGEST_ANSWER = 1 << 20


class Request(NamedTuple):
    """What is asked. ``url`` may be relative to the host's base; ``key`` names what a token for it is good for."""

    method: str
    url: str
    what: str
    key: str = ""
    headers: Mapping[str, str] = {}
    body: Body | None = None
    attempts: int = ATTEMPTS


class Endpoint:
    """A client of one host. May be used by several threads at once."""

    def __init__(self, host: Host, credentials: Callable[[], Credentials | None]) -> None:
        """Connect to nothing yet. ``credentials`` is asked when the host wants some, once.

        Raises:
            InvalidInput: its certificates cannot be read.
        """
        self.host = host
        self._credentials = credentials
        self._connections = Connections()
        context = _context(host, own=True) if host.base.startswith("https:") else None
        self._pool = self._connections.pool(host.base, direct=is_loopback(host.authority), context=context)
        self._others: urllib3.PoolManager | None = None
        self._answers: dict[str, tuple[Challenge, Answer]] = {}
        self._logging_in = threading.Lock()
        self._open: set[Response] = set()
        self._stopped = threading.Event()

    @contextlib.contextmanager
    def ask(self, request: Request) -> Iterator[Response]:
        """Send a request, again where that may help; the block gets the last answer, whatever its status.

        Raises:
            RegistryError: the host cannot be reached, or wants credentials that there are not.
        """
        url = urljoin(f"{self.host.base}/", request.url)
        response = self._send(url, request, self._authorization(request.key))
        if response.status == 401 and self._is_own(url):
            response.drain_conn()
            headers = self._log_in(response.headers.getlist("WWW-Authenticate"), request)
            response = self._send(url, request, headers)
        self._open.add(response)
        try:
            yield response
        finally:
            self._open.discard(response)
            response.close()

    def wait(self, seconds: float) -> None:
        """Wait, unless it is stopped meanwhile. Raises RegistryError: it was."""
        if self._stopped.wait(seconds):
            raise RegistryError(f"go on with {self.host.authority}", "it was stopped")

    def abort(self) -> None:
        """End everything under way; whoever waits gets a RegistryError. Called from another thread."""
        self._stopped.set()
        self._connections.cut()
        for response in list(self._open):
            with contextlib.suppress(ValueError, RuntimeError, OSError):
                response.shutdown()

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def _send(self, url: str, request: Request, authorization: dict[str, str]) -> Response:
        """Send it until the answer is not one that may pass."""
        for attempt in range(1, request.attempts + 1):
            wait_s = FIRST_WAIT_S * 2 ** (attempt - 1)
            try:
                response = self._follow(url, request, authorization)
            except HTTPError as error:
                if attempt >= min(request.attempts, _attempts(error)) or self._stopped.is_set():
                    raise self._unreachable(error, request.what) from error
            else:
                wait_s = retry_after(response.headers.get("Retry-After", ""), wait_s)
                if response.status not in PASSING or attempt == request.attempts or wait_s > LONGEST_WAIT_S:
                    return response
                response.drain_conn()
            self.wait(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def _follow(self, url: str, request: Request, authorization: dict[str, str]) -> Response:
        """Send it once, and follow redirects; nothing of ours goes along to another host."""
        own = {**self.host.header, **authorization}
        for _ in range(MOST_REDIRECTS + 1):
            is_own = self._is_own(url)
            response = (self._pool if is_own else self._foreign(url)).request(
                request.method,
                url,
                headers={**request.headers, **(own if is_own else {})},
                body=request.body() if request.body else None,
                preload_content=False,
                decode_content=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=self.host.connect_s, read=SILENCE_S),
                retries=NO_RETRY,
            )
            location = response.headers.get("Location", "")
            if response.status not in REDIRECTS or not location:
                return response
            response.drain_conn()
            url = urljoin(url, location)
            if urlsplit(url).scheme not in ("http", "https"):
                raise RegistryError(request.what, f"{self.host.authority} sends us to {url[:80]!r}", "ask its owner")
        raise RegistryError(request.what, f"{self.host.authority} sends us in circles", "ask its owner")

    def _is_own(self, url: str) -> bool:
        return _origin(url) == _origin(self.host.base)

    def _foreign(self, url: str) -> urllib3.PoolManager:
        """Return connections for other hosts: the CAs are trusted as for ours, and no certificate is shown."""
        if self._others is None:
            direct = is_loopback(urlsplit(url).netloc)
            self._others = self._connections.pool(url, direct=direct, context=_context(self.host, own=False))
        return self._others

    def _authorization(self, key: str) -> dict[str, str]:
        """Return what is known to be wanted; a token that has expired is renewed."""
        with self._logging_in:
            challenge, known = self._answers.get(key, (None, None))
            if challenge is None or known is None:
                return {}
            if not known.is_valid():
                known = self._answer(challenge)
                self._answers[key] = challenge, known
            return known.headers

    def _log_in(self, asked: list[str], request: Request) -> dict[str, str]:
        challenge = auth.read(asked)
        with self._logging_in:
            answer = self._answer(challenge)
            self._answers[request.key] = challenge, answer
        return answer.headers

    def _answer(self, challenge: Challenge) -> Answer:
        credentials = self._credentials()
        return auth.answer(challenge, credentials, self._fetch_token, secure=self.host.base.startswith("https:"))

    def _fetch_token(self, url: str, headers: dict[str, str], body: bytes | None) -> bytes:
        what = f"log in to {self.host.authority}"
        method = "GET" if body is None else "POST"
        request = Request(method, url, what, headers=headers, body=None if body is None else lambda: body)
        with contextlib.closing(self._send(url, request, {})) as response:
            answer = self.read(response, what, LONGEST_ANSWER)
            if response.status != 200:
                why = f"its token server {urlsplit(url).netloc} says {response.status}"
                raise RegistryError(what, why, "check user name and password: see minirt login")
        return answer

    def read(self, response: Response, what: str, limit: int) -> bytes:
        """Return an answer's body. Raises RegistryError: it is longer than ``limit`` bytes, or breaks off."""
        data = b""
        try:
            for piece in response.stream(1 << 16, decode_content=False):
                data += piece
                if len(data) > limit:
                    raise RegistryError(what, f"the answer is longer than {limit} bytes", "name an image")
        except (HTTPError, OSError) as error:
            why = f"the connection ended after {len(data)} bytes: {reason(error)}"
            raise RegistryError(what, why, "try again") from error
        return data

    def _unreachable(self, error: HTTPError, what: str) -> RegistryError:
        if isinstance(getattr(error, "reason", error), SSLError):
            do = "does it speak TLS? is its CA trusted here? see docs/registries.md"
            return RegistryError(what, f"TLS failed: {reason(error)}", do)
        do = f"is {self.host.authority} up, and is the way there open?"
        if self.host.authority == "localhost":
            do = "names of localhost/ are of images made here: see minirt image import"
        return RegistryError(what, reason(error), do)


def retry_after(header: str, otherwise: float) -> float:
    """Return for how many seconds a Retry-After header asks to wait: it holds a number of them, or a date."""
    if header.isascii() and header.isdigit():
        return float(header)
    with contextlib.suppress(ValueError, TypeError):
        date = email.utils.parsedate_to_datetime(header)
        return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())
    return otherwise


def reason(error: Exception) -> str:
    """Return the innermost reason of urllib3's nested errors, without its objects' addresses."""
    inner: object = error
    while isinstance(inner, Exception):
        error, inner = inner, getattr(inner, "reason", None) or (inner.args[-1] if inner.args else None)
    said = str(error).rpartition(": ")[2] or type(error).__name__
    return re.sub(r"\[Errno -?\d+\] ", "", said)


def _attempts(error: HTTPError) -> int:
    """Return how often to try where this is the error: a wrong certificate or an unknown name stay what they are."""
    inner = getattr(error, "reason", error)
    if isinstance(inner, (SSLError, NameResolutionError)):
        return 1
    return CONNECTING_ATTEMPTS if isinstance(inner, (NewConnectionError, ConnectTimeoutError)) else ATTEMPTS


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _context(host: Host, *, own: bool) -> ssl.SSLContext:
    """Return whom a host's connections trust, and with ``own`` what they show of us."""
    context = ssl.create_default_context()
    path = ""
    try:
        for path in host.ca:
            context.load_verify_locations(path)
        for path, key in host.client if own else ():
            context.load_cert_chain(path, key or None)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"use the certificate {path}", str(error), "it must be PEM, with its own key") from error
    if own and host.skip_verify:
        urllib3.disable_warnings(InsecureRequestWarning)  # it is as the administrator has it
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
