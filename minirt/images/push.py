"""An image goes to a registry: its blobs, those that are not there already, then the manifest that makes it one.

    HEAD  blobs/<digest>                           200: it is there
    POST  blobs/uploads/?mount=<digest>&from=…     201: taken from another repository of that registry
                                                   202: Location is where to put it
    PUT   <Location>?digest=<digest>               all of it, where it is small
    PATCH <Location>  Content-Range: 0-33554431    else piece by piece, each answer with the next Location;
    PUT   <Location>?digest=<digest>               then nothing more
    GET   <Location>  ──▶ Range: 0-<last>          how much of a piece arrived before the connection broke
    PUT   manifests/<tag>

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, "Push"
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO
from urllib.parse import quote

from urllib3.exceptions import HTTPError

from minirt.errors import DigestMismatch, ImageError, InvalidInput, MinirtError, RegistryError
from minirt.images import manifest
from minirt.images.blobs import Blobs
from minirt.images.endpoint import Endpoint, Request, Response
from minirt.images.manifest import Descriptor, Manifest
from minirt.images.progress import Progress, Report, State
from minirt.images.reference import Reference
from minirt.images.registry import Registry

AT_A_TIME = 3
CHUNK_BYTES = 32 << 20
FRUITLESS = 3
"""How often a blob is begun, or gone on with, without a byte more before it is given up."""


def push(
    blobs: Blobs,
    digest: str,
    reference: Reference,
    registry: Registry,
    known_as: Iterable[str] = (),
    report: Report | None = None,
) -> str:
    """Push the image of a manifest under a name; return the manifest's digest there.

    ``known_as`` are other names the image has: a repository of the same registry has its blobs, probably.

    Raises:
        ImageError: RegistryError; a blob is missing here.
    """
    what = f"push {reference}"
    data = blobs.read(digest)
    found = manifest.read(data, what)
    if not isinstance(found, Manifest):
        raise ImageError(what, "it is an index where a manifest should be")
    others = {one.repository for one in map(Reference.parse, known_as) if one.registry == reference.registry}
    _Push(blobs, reference, registry, sorted(others - {reference.repository}), report).run(found, data, digest)
    return digest


class _Push:
    """One image on its way to a registry. ``report`` is called from several threads, one at a time."""

    def __init__(
        self, blobs: Blobs, reference: Reference, registry: Registry, others: list[str], report: Report | None
    ) -> None:
        if "push" not in registry.server.host.capabilities:
            why = f"{registry.server.host.authority} has not the capability 'push'"
            raise InvalidInput(f"push {reference}", why, "see its hosts.toml")
        self._blobs = blobs
        self._reference = reference
        self._registry = registry
        self._server: Endpoint = registry.server
        self._others = others
        self._report = report
        self._reporting = threading.Lock()
        self._repository = reference.repository
        self._key = f"{self._repository}:push"

    def run(self, found: Manifest, data: bytes, digest: str) -> None:
        """Push blobs, a few at a time, then the manifest."""
        distinct = {one.digest: one for one in (*found.layers, found.config)}
        pool = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="push")
        try:
            for done in [pool.submit(self._blob, one) for one in distinct.values()]:
                done.result()
        except BaseException:
            self._registry.abort()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        self._manifest(found, data, digest)

    def _manifest(self, found: Manifest, data: bytes, digest: str) -> None:
        what = f"push {self._reference}"
        url = f"{self._repository}/manifests/{self._reference.target}"
        request = Request("PUT", url, what, self._key, {"Content-Type": found.media_type}, lambda: data)
        with self._good(request, 201, 200) as response:
            said = response.headers.get("Docker-Content-Digest", digest)
        if said != digest:
            raise DigestMismatch(what, f"the registry took it for {said}, and it is {digest}", "mistrust that registry")

    def _blob(self, one: Descriptor) -> None:
        """Have one blob be there; begin again where that may help."""
        for attempt in range(1, FRUITLESS + 1):
            try:
                self._once(one)
                break
            except RegistryError as error:
                may_pass = isinstance(error, _Interrupted) or isinstance(error.__cause__, HTTPError)
                if attempt == FRUITLESS or not may_pass:
                    raise
                self._server.wait(0.2 * 2**attempt)

    def _once(self, one: Descriptor) -> None:
        what = f"push blob {one.digest[:19]} to {self._registry.host}/{self._repository}"
        url = f"{self._repository}/blobs/{one.digest}"
        with self._server.ask(Request("HEAD", url, what, self._key)) as response:
            if response.status == 200:
                return self._tell(one, "there", one.size)
        location = self._begin(one, what)
        if not location:
            return self._tell(one, "mounted", one.size)
        try:
            with self._blobs.path(one.digest).open("rb") as file:
                self._upload(one, file, location, what)
        except FileNotFoundError as error:
            raise MinirtError(what, "it is not in the store", "pull or load the image again") from error
        return self._tell(one, "pushed", one.size)

    def _begin(self, one: Descriptor, what: str) -> str:
        """Return where to put a blob; "" where the registry has taken it from another of its repositories."""
        url = f"{self._repository}/blobs/uploads/"
        empty = {"Content-Length": "0"}
        for other in self._others[:1]:
            query = f"?mount={quote(one.digest, safe='')}&from={quote(other, safe='')}"
            with self._server.ask(Request("POST", url + query, what, f"{self._key}<{other}", empty)) as response:
                if response.status == 201:
                    return ""
                if response.status == 202:
                    return self._location(response, what)
        with self._good(Request("POST", url, what, self._key, empty), 202) as response:
            return self._location(response, what)

    def _upload(self, one: Descriptor, file: IO[bytes], location: str, what: str) -> None:
        start = 0
        if one.size > CHUNK_BYTES:
            location, start = self._chunks(one, file, location, what), one.size
        mark = "&" if "?" in location else "?"
        url = f"{location}{mark}digest={quote(one.digest, safe='')}"
        request = Request("PUT", url, what, self._key, *self._part(one, file, start, one.size), attempts=1)
        with self._good(request, 201, 200, 204):
            return

    def _chunks(self, one: Descriptor, file: IO[bytes], location: str, what: str) -> str:
        """Send all of a blob in chunks; return where to finish it."""
        start, fruitless = 0, 0
        while start < one.size:
            end = min(start + CHUNK_BYTES, one.size)
            headers, body = self._part(one, file, start, end)
            headers = {**headers, "Content-Range": f"{start}-{end - 1}"}
            try:
                request = Request("PATCH", location, what, self._key, headers, body, attempts=1)
                with self._good(request, 202, 204) as response:
                    location, start, fruitless = self._location(response, what), end, 0
            except RegistryError:
                arrived, location = self._arrived(location, what)
                fruitless = 0 if arrived > start else fruitless + 1
                if fruitless >= FRUITLESS:
                    raise
                start = arrived
                self._server.wait(0.2 * 2**fruitless)
        return location

    def _arrived(self, location: str, what: str) -> tuple[int, str]:
        """Return how many bytes the registry has, and where to go on. Raises RegistryError: it has forgotten us."""
        with self._good(Request("GET", location, what, self._key), 204, 200) as response:
            last = response.headers.get("Range", "").rpartition("-")[2]
            arrived = int(last) + 1 if last.isdigit() else 0
            return (0 if last == "0" else arrived), self._location(response, what, location)

    def _part(self, one: Descriptor, file: IO[bytes], start: int, end: int) -> "tuple[dict[str, str], _Part]":
        headers = {"Content-Length": str(end - start), "Content-Type": "application/octet-stream"}
        return headers, _Part(file, start, end, lambda done: self._tell(one, "uploading", done))

    @contextlib.contextmanager
    def _good(self, request: Request, *statuses: int) -> Iterator[Response]:
        """Ask the server; the block gets an answer of one of these statuses. Raises RegistryError: another."""
        with self._server.ask(request) as response:
            if response.status not in statuses:
                refusal = self._registry.refusal(self._server, response, request.what)
                kind = _Interrupted if response.status >= 500 or response.status in (404, 416) else RegistryError
                raise kind(refusal.what, refusal.why, refusal.do)
            yield response

    def _location(self, response: Response, what: str, otherwise: str = "") -> str:
        found = response.headers.get("Location", otherwise)
        if not found:
            raise RegistryError(what, "the registry does not say where to put it", "ask its owner")
        return found

    def _tell(self, what: Descriptor, state: State, done: int) -> None:
        if self._report:
            with self._reporting:
                self._report(Progress(what.digest, state, done, what.size))


class _Interrupted(RegistryError):
    """An upload that the registry has lost, or could not take this time."""


class _Part:
    """A part of a file as a request's body; calling it starts it anew."""

    def __init__(self, file: IO[bytes], start: int, end: int, tell: "Callable[[int], None]") -> None:
        self._file, self._start, self._end, self._tell = file, start, end, tell

    def __call__(self) -> Iterator[bytes]:
        """Yield the part in pieces, and tell how far in the file each one ends."""
        self._file.seek(self._start)
        at = self._start
        while at < self._end:
            piece = self._file.read(min(1 << 18, self._end - at))
            if not piece:
                raise OSError("the blob is shorter than its manifest says")
            at += len(piece)
            yield piece
            self._tell(at)
