"""A registry, read over HTTP: manifests and blobs, each verified by whoever takes them.

    GET /v2/<repository>/manifests/<tag or digest>
    GET /v2/<repository>/blobs/<digest>            (often redirected to a blob store; credentials stay behind)
    GET /v2/<repository>/tags/list                 page by page, as the Link header says
    GET /v2/<repository>/referrers/<digest>        or, where that is not known, the index tagged sha256-<hex>

Its mirrors are asked first, in their order, and what one of them does not have or cannot give, the next is asked for.
A blob that breaks off goes on where it broke off, with another host if need be: it is the same by its digest.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md; containerd's docs/hosts.md
"""

import contextlib
import json
import re
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from msgspec import Struct
from urllib3.exceptions import HTTPError

from minirt.errors import DigestMismatch, ImageError, NotFound, RegistryError
from minirt.images import credentials as files
from minirt.images import hosts
from minirt.images.blobs import LARGEST_DOCUMENT, digest_of
from minirt.images.credentials import Credentials
from minirt.images.endpoint import Endpoint, Request, Response, reason
from minirt.images.manifest import READABLE, Descriptor, Index, decode

PIECE_BYTES = 1 << 18
FRUITLESS = 3
"""How often a blob is asked for again without a byte more before that host is given up."""
PAGE = 1000


class Document(NamedTuple):
    """A manifest or an index as it came, and the digest of exactly these bytes."""

    data: bytes
    digest: str


class _Tags(Struct):
    tags: list[str] | None = None


class Registry:
    """One registry. May be used by several threads at once."""

    def __init__(self, host: str, *, plain_http: bool | None = None, credentials: Credentials | None = None) -> None:
        """Connect to nothing yet. ``plain_http`` None means: only to a loopback address.

        ``credentials`` are for the registry's own server; None: those of the user's files. Mirrors get those that the
        files have for them.

        Raises:
            InvalidInput: its settings in hosts.toml make no sense.
        """
        self.host = host
        self._given = credentials
        self._down: set[Endpoint] = set()
        self._endpoints = [
            Endpoint(one, self._finder(one)) for one in hosts.find(host, plain_http=plain_http)
        ]  # the server is the last

    def _finder(self, host: hosts.Host) -> Callable[[], Credentials | None]:
        if host.is_mirror:
            return lambda: files.find(host.authority)
        return lambda: self._given or files.find(self.host)

    def manifest(self, repository: str, target: str) -> Document:
        """Return what a tag or a digest names.

        Raises:
            NotFound: no such repository, or no such tag or digest in it.
            DigestMismatch: the bytes are not what the digest, or the registry's own header, says.
            RegistryError: it refused, or could not be reached.
        """
        mark, capability = ("@", "pull") if ":" in target else (":", "resolve")
        what = f"pull {self.host}/{repository}{mark}{target}"
        headers = {"Accept": ", ".join(READABLE)}

        def get(endpoint: Endpoint) -> Document:
            request = Request("GET", f"{repository}/manifests/{target}", what, f"{repository}:pull", headers)
            with self._asked(endpoint, request) as response:
                return _document(endpoint, response, target, what)

        return self._first(capability, get)

    @contextlib.contextmanager
    def blob(self, repository: str, digest: str) -> Iterator[Iterator[bytes]]:
        """Open a blob; the block gets its bytes in pieces, unverified. Raises as ``manifest`` does."""
        pieces = _Blob(self, repository, digest).pieces()
        try:
            yield pieces
        finally:
            pieces.close()

    def tags(self, repository: str) -> Iterator[str]:
        """Yield the tags of a repository, page by page. Raises as ``manifest`` does."""
        what = f"list the tags of {self.host}/{repository}"
        url = f"{repository}/tags/list?n={PAGE}"
        while url:
            with self._asked(self.server, Request("GET", url, what, f"{repository}:pull")) as response:
                page = decode(self.server.read(response, what, LARGEST_DOCUMENT), _Tags, what)
                url = self._next_page(url, response)
            yield from page.tags or ()

    def referrers(self, repository: str, digest: str, kind: str = "") -> list[Descriptor]:
        """Return what refers to a manifest (signatures, bills of materials); ``kind`` is an artifact type, "" for any.

        Raises as ``manifest`` does.
        """
        what = f"list what refers to {self.host}/{repository}@{digest}"
        query = f"?artifactType={quote(kind, safe='')}" if kind else ""
        found: list[Descriptor] = []
        url = f"{repository}/referrers/{digest}{query}"
        try:
            while url:
                with self._asked(self.server, Request("GET", url, what, f"{repository}:pull")) as response:
                    found += decode(self.server.read(response, what, LARGEST_DOCUMENT), Index, what).manifests
                    url = self._next_page(url, response)
        except NotFound:  # it does not know the question: then there may be a tag by that name
            with contextlib.suppress(NotFound):
                data = self.manifest(repository, digest.replace(":", "-", 1)).data
                found = decode(data, Index, what).manifests
        return [one for one in found if not kind or one.artifact_type == kind]

    def check(self) -> None:
        """See whether the server takes our credentials. Raises RegistryError: it does not, or cannot be reached."""
        what = f"log in to {self.host}"
        with self.server.ask(Request("GET", "", what)) as response:
            if response.status in (401, 403):
                said = _first_error(self.server.read(response, what, LARGEST_DOCUMENT))[1] or response.reason
                why = f"{self.host} says {said} ({response.status})"
                raise RegistryError(what, why, "check the user name and the password")
            if response.status != 200:
                why = f"{self.host} answers {response.status}, as no registry does"
                raise RegistryError(what, why, "is that a registry?")

    @property
    def server(self) -> Endpoint:
        """Return the registry's own server, which is what is pushed to and asked for lists."""
        return self._endpoints[-1]

    def able(self, capability: str) -> list[Endpoint]:
        """Return who is to be asked for something, in order. Raises RegistryError: nobody."""
        found = [one for one in self._endpoints if capability in one.host.capabilities and one not in self._down]
        if not found:
            why = f"no host of it has the capability {capability!r}"
            raise RegistryError(f"ask {self.host}", why, "see its hosts.toml")
        return found

    def abort(self) -> None:
        """End everything under way; whoever waits gets a RegistryError. Called from another thread."""
        for endpoint in self._endpoints:
            endpoint.abort()

    def close(self) -> None:
        """Close the connections."""
        for endpoint in self._endpoints:
            endpoint.close()

    def _first(self, capability: str, get: Callable[[Endpoint], Document]) -> Document:
        """Return what the first host gives that can; the last one's error is the error."""
        *mirrors, last = self.able(capability)
        for endpoint in mirrors:
            with self.trying(endpoint):
                return get(endpoint)
        return get(last)

    @contextlib.contextmanager
    def trying(self, mirror: Endpoint) -> Iterator[None]:
        """Let a mirror fail in the block; one that cannot be reached is asked no more."""
        try:
            yield
        except (ImageError, NotFound) as error:
            if isinstance(error.__cause__, HTTPError):
                self._down.add(mirror)

    @contextlib.contextmanager
    def _asked(self, endpoint: Endpoint, request: Request, good: tuple[int, ...] = (200,)) -> Iterator[Response]:
        """Ask one host; the block gets the answer if it is a good one. Raises NotFound, RegistryError."""
        with endpoint.ask(self.named(endpoint, request)) as response:
            if response.status not in good:
                raise self.refusal(endpoint, response, request.what)
            yield response

    def named(self, endpoint: Endpoint, request: Request) -> Request:
        """Return a request as a mirror wants it, which is told whose image it is (containerd's ``ns``)."""
        if not endpoint.host.is_mirror:
            return request
        mark = "&" if "?" in request.url else "?"
        return request._replace(url=f"{request.url}{mark}ns={quote(self.host, safe='')}")

    def _next_page(self, url: str, response: Response) -> str:
        """Return where the next page is, "" after the last. A page of another host is none of ours."""
        found = re.match(r'\s*<([^>]*)>\s*;\s*rel="?next"?', response.headers.get("Link", ""))
        base = f"{self.server.host.base}/"
        following = urljoin(urljoin(base, url), found[1]) if found else ""
        return following if urlsplit(following).netloc == urlsplit(base).netloc else ""

    def refusal(self, endpoint: Endpoint, response: Response, what: str) -> RegistryError | NotFound:
        """Return the error that a status and the registry's own words amount to."""
        code, message = _first_error(endpoint.read(response, what, LARGEST_DOCUMENT))
        who = endpoint.host.authority if endpoint.host.is_mirror else self.host
        said = f"{who} says {message or code or response.reason} ({response.status})"
        if code == "NAME_UNKNOWN":
            return NotFound(what, f"{who} has no such repository", "check the name")
        if response.status == 404:
            return NotFound(what, f"{who} has no such tag or digest there", "check the tag")
        if response.status in (401, 403):
            return RegistryError(what, said, "it does not exist, or needs other credentials: see minirt login")
        if response.status == 429:
            wait = response.headers.get("Retry-After", "")
            do = f"it limits how often it is asked: wait{f' {wait} s' if wait.isdigit() else ''}, or log in"
            return RegistryError(what, said, do)
        return RegistryError(what, said, "try again later")


class _Blob:
    """One blob on its way here."""

    def __init__(self, registry: Registry, repository: str, digest: str) -> None:
        self._registry = registry
        self._repository = repository
        self._digest = digest
        self._what = f"pull blob {digest[:19]} of {registry.host}/{repository}"
        self._got = 0

    def pieces(self) -> Generator[bytes, None, None]:
        """Yield it, from one host after the other. Raises as ``Registry.manifest`` does."""
        *mirrors, last = self._registry.able("pull")
        for endpoint in mirrors:
            with self._registry.trying(endpoint):
                yield from self._from(endpoint)
                return
        yield from self._from(last)

    def _from(self, endpoint: Endpoint) -> Iterator[bytes]:
        """Yield what one host gives; when it breaks off, ask it for the rest."""
        fruitless = 0
        while True:
            before = self._got
            try:
                yield from self._rest(endpoint)
            except (HTTPError, OSError) as error:
                fruitless = 0 if self._got > before else fruitless + 1
                if fruitless >= FRUITLESS:
                    why = f"the connection ended after {self._got} bytes: {reason(error)}"
                    raise RegistryError(self._what, why, "pull again: what is complete is kept") from error
                endpoint.wait(0.2 * 2**fruitless)
            else:
                return

    def _rest(self, endpoint: Endpoint) -> Iterator[bytes]:
        """Ask for what is still to come; a host that knows no ranges sends it all, and the beginning is passed over."""
        headers = {"Range": f"bytes={self._got}-"} if self._got else {}
        url, key = f"{self._repository}/blobs/{self._digest}", f"{self._repository}:pull"
        request = self._registry.named(endpoint, Request("GET", url, self._what, key, headers))
        with endpoint.ask(request) as response:
            if response.status == 416 and self._got:
                return  # we have it all: whoever verifies it will see
            if response.status not in (200, 206):
                raise self._registry.refusal(endpoint, response, self._what)
            passing = self._got if response.status == 200 else 0
            for piece in response.stream(PIECE_BYTES, decode_content=False):
                new = piece[passing:]
                passing -= min(passing, len(piece))
                self._got += len(new)
                if new:
                    yield new


def _document(endpoint: Endpoint, response: Response, target: str, what: str) -> Document:
    promised = target if ":" in target else response.headers.get("Docker-Content-Digest", "")
    data = endpoint.read(response, what, LARGEST_DOCUMENT)
    found = digest_of(data)
    if promised.startswith("sha256:") and promised != found:
        raise DigestMismatch(what, f"the registry sent {found} for {promised}", "try again; if it stays, mistrust it")
    return Document(data, found)


def _first_error(body: bytes) -> tuple[str, str]:
    """Return (code, message) of a registry's JSON errors, empty where there are none."""
    try:
        first = json.loads(body)["errors"][0]
        return str(first.get("code", "")), str(first.get("message", ""))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "", ""
