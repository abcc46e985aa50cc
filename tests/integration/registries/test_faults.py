"""Pulls through a proxy that spoils what a real registry says."""

import email.utils
import time
from pathlib import Path

import pytest

from minirt.errors import DigestMismatch, MinirtError, NotFound, RegistryError
from minirt.images import endpoint
from minirt.images.credentials import Credentials
from minirt.images.store import ImageStore
from tests.command import Minirt
from tests.integration.images.making import Layout, entry, layer
from tests.integration.images.serving import Server
from tests.integration.registries.conftest import NAME
from tests.peers.daemon import output
from tests.peers.faults import Asked, Choice, Fault, Proxy
from tests.peers.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.needs("registry")]


@pytest.fixture
def path(registry: Registry, made: ImageStore) -> str:
    made.push(NAME, f"{registry.address}/faults:v1")
    return "faults:v1"


def pull(registry: Registry, path: str, where: Path, fault: Choice) -> Proxy:
    """Pull once through a fault; return the proxy, for what it was asked."""
    with Proxy(registry.address, fault) as proxy:
        assert ImageStore(where / "fresh").pull(f"{proxy.host}/{path}").names
        return proxy


def once(fault: Fault, word: str = "") -> Choice:
    """Return a choice that has each thing with ``word`` in its path go wrong the first time."""
    seen: set[str] = set()

    def choose(asked: Asked) -> Fault | None:
        if word not in asked.path or asked.path in seen:
            return None
        seen.add(asked.path)
        return fault

    return choose


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_passes_is_tried_again(registry: Registry, path: str, tmp_path: Path, status: int) -> None:
    proxy = pull(registry, path, tmp_path, once(Fault(status)))
    assert len(proxy.asked) == 2 * (1 + 4)


def test_a_connection_that_ends_without_an_answer(registry: Registry, path: str, tmp_path: Path) -> None:
    assert len(pull(registry, path, tmp_path, once(Fault(deaf=True))).asked) == 10


def test_a_blob_goes_on_where_it_broke_off(registry: Registry, path: str, tmp_path: Path) -> None:
    """Again and again, as long as there is something new each time."""
    large = Fault(cut=700_000)
    proxy = pull(registry, path, tmp_path, lambda asked: large if "/blobs/" in asked.path else None)
    ranges = [asked.headers["Range"] for asked in proxy.asked if "Range" in asked.headers]
    assert ranges == [f"bytes={count * 700_000}-" for count in (1, 2, 3, 4)]


def test_a_registry_without_ranges_sends_it_all_again(registry: Registry, path: str, tmp_path: Path) -> None:
    with Proxy(registry.address, once(Fault(cut=1_000_000), "/blobs/")) as proxy:
        proxy.forget = "Range"
        assert ImageStore(tmp_path / "fresh").pull(f"{proxy.host}/{path}").names


def test_a_server_that_falls_silent(
    registry: Registry, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "SILENCE_S", 0.3)
    slow = once(Fault(pause_after=1_000_000), "/blobs/")
    proxy = pull(registry, path, tmp_path, slow)
    assert any("Range" in asked.headers for asked in proxy.asked)


def test_retry_after(registry: Registry, path: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    pull(registry, path, tmp_path, once(Fault(429, {"Retry-After": "1"}), "manifests"))
    assert time.monotonic() - begun >= 1
    begun = time.monotonic()
    with Proxy(registry.address, lambda _: Fault(429, {"Retry-After": "3600"})) as proxy:
        with pytest.raises(RegistryError, match=r"\(429\) \(it limits how often it is asked: wait 3600 s, or log in"):
            ImageStore(tmp_path / "other").pull(f"{proxy.host}/{path}")
        assert len(proxy.asked) == 1
    assert time.monotonic() - begun < 5


def test_retry_after_as_a_date() -> None:
    assert endpoint.retry_after("7", 0.2) == 7
    assert 50 < endpoint.retry_after(email.utils.formatdate(time.time() + 60, usegmt=True), 0.2) <= 60
    assert endpoint.retry_after(email.utils.formatdate(0, usegmt=True), 0.2) == 0
    for odd in ("", "soon", "-1", "²"):
        assert endpoint.retry_after(odd, 0.2) == 0.2


@pytest.mark.parametrize(
    ("word", "fault", "kind", "why"),
    [
        ("manifests", Fault(body=b"{}"), DigestMismatch, "the registry sent sha256:"),
        ("/blobs/", Fault(body=b"{}"), DigestMismatch, "2 bytes with the digest"),
        ("/blobs/", Fault(body=b" " * 9_000_000), DigestMismatch, "bytes with the digest"),
        ("manifests", Fault(500), RegistryError, "(500)"),
        ("/blobs/", Fault(403), RegistryError, "(403)"),
        ("/blobs/", Fault(404), NotFound, "(check the tag)"),
        ("manifests", Fault(301, {"Location": "/v2/faults/manifests/v1"}), RegistryError, "in circles"),
        (
            "manifests",
            Fault(307, {"Location": "file:///etc/shadow"}),
            RegistryError,
            "sends us to 'file:///etc/shadow'",
        ),
        ("manifests", Fault(401, {"WWW-Authenticate": "Negotiate"}), RegistryError, "asks for Negotiate"),
        ("manifests", Fault(401), RegistryError, "asks for nothing known"),
        ("manifests", Fault(cut=10), RegistryError, "the connection ended after 10 bytes"),
    ],
)
def test_what_stays_wrong(
    registry: Registry, path: str, tmp_path: Path, word: str, fault: Fault, kind: type[MinirtError], why: str
) -> None:
    fresh = ImageStore(tmp_path / "fresh")
    with Proxy(registry.address, lambda asked: fault if word in asked.path else None) as proxy:
        with pytest.raises(kind) as caught:
            fresh.pull(f"{proxy.host}/{path}")
        assert why in str(caught.value)
    assert fresh.list() == []


def test_a_redirect_to_another_host(registry: Registry, path: str, tmp_path: Path, home: Path) -> None:
    """It gets the question, and neither the password nor the headers that are for the registry."""
    with Proxy(registry.address) as blobs:

        def fault(asked: Asked) -> Fault | None:
            if "Authorization" not in asked.headers:
                return Fault(401, {"WWW-Authenticate": 'Basic realm="x"'})
            there = {"Location": f"http://{blobs.host}{asked.path}"}
            return Fault(307, there) if "/blobs/" in asked.path else None

        with Proxy(registry.address, fault) as proxy:
            directory = home / "certs.d" / proxy.host
            directory.mkdir()
            (directory / "hosts.toml").write_text(f'server = "http://{proxy.host}"\n[header]\nx-secret = "blue"\n')
            fresh = ImageStore(tmp_path / "fresh")
            assert fresh.pull(f"{proxy.host}/{path}", credentials=Credentials("me", "secret")).names
            assert all("X-Secret" in asked.headers for asked in proxy.asked)
        assert blobs.count("GET", "/blobs/") == 4
        assert not [asked for asked in blobs.asked if {"Authorization", "X-Secret"} & asked.headers.keys()]


@pytest.mark.needs("skopeo")
def test_all_platforms(registry: Registry, minirt: Minirt, tmp_path: Path) -> None:
    (tmp_path / "layout").mkdir()
    layout = Layout(tmp_path / "layout")
    images = [layout.image([layer(entry(arch))], arch=arch) for arch in ("amd64", "arm64", "s390x")]
    layout.tag(layout.index(*images), "v1")
    name = f"{registry.address}/everywhere:v1"
    output("skopeo", "copy", "--all", "--dest-tls-verify=false", f"oci:{layout.top}:v1", f"docker://{name}")
    fresh = ImageStore(tmp_path / "fresh")
    others = fresh.pull_others(name)
    mine = fresh.pull(name)
    assert len({str(one.platform) for one in (*others, mine)}) == 3
    assert all(not one.names and one.digests for one in others)
    assert fresh.get(name) == mine
    assert minirt.output("image", "pull", "--all-platforms", name) == name
    assert len(minirt.output("image", "ls", "-q").split()) == 3
    both = minirt("image", "pull", "--all-platforms", "--platform", "linux/arm64", name)
    assert both.returncode == 125
    assert "do not go together" in both.stderr


def test_an_index_in_an_index(tmp_path: Path) -> None:
    """The outer one says nothing of platforms; the inner one does."""
    (tmp_path / "layout").mkdir()
    layout = Layout(tmp_path / "layout")
    inner = layout.index(*(layout.image([layer(entry(arch))], arch=arch) for arch in ("arm64", "amd64")))
    layout.tag(layout.index(inner), "v1")
    with Server(layout) as server:
        fresh = ImageStore(tmp_path / "fresh")
        assert fresh.pull(f"{server.host}/nested:v1").platform.architecture == "amd64"
        assert fresh.pull(f"{server.host}/nested:v1", platform="linux/arm64").platform.architecture == "arm64"
