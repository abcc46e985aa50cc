"""Pulls that go wrong: what the user is told, and that nothing half-done is left; and pulls that are cut off."""

import base64
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from minirt.errors import DigestMismatch, HostileLayer, ImageError, MinirtError, NotFound, RegistryError, Unsupported
from minirt.images.credentials import Credentials
from minirt.images.image import chain_ids
from minirt.images.snapshots import Snapshots
from minirt.images.store import ImageStore
from minirt.linux import mount
from tests.command import Minirt
from tests.integration.images.making import Layout, compressed, digest, entry, layer
from tests.integration.images.serving import Answer, Request, Server, error, spoilt
from tests.integration.images.tree import facts
from tests.peers.daemon import await_true

pytestmark = pytest.mark.root
CONFIG = "application/vnd.oci.image.config.v1+json"
HELM = "application/vnd.cncf.helm.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
SOME = "sha256:" + "0" * 64
MS_REMOUNT = 32
LAYERS = [layer(entry(f"file{count}", os.urandom(1_500_000))) for count in range(3)]


@pytest.fixture
def served(layout: Layout) -> Layout:
    return layout.tag(layout.image(LAYERS), "latest")


def nothing_new(store: ImageStore) -> None:
    """Assert that there is no image and no file half-written; verified blobs and layers may be there."""
    assert store.list() == []
    snapshots = {path.name for path in (store.root / "snapshots").glob("*")}
    assert snapshots <= {chain_id[7:] for chain_id in chain_ids(map(digest, LAYERS))}
    for path in (store.root / "tmp").rglob("*"):
        assert path.is_dir() or path.name in (".lock", "lease.json"), path
    for blob in (store.root / "blobs/sha256").glob("*"):
        assert digest(blob.read_bytes())[7:] == blob.name


def refused(store: ImageStore, server: Server, kind: type[MinirtError], *words: str, name: str = "x") -> None:
    with pytest.raises(kind) as caught:
        store.pull(f"{server.host}/{name}")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    nothing_new(store)


def test_a_layer_that_is_not_its_digest(store: ImageStore, served: Layout) -> None:
    spoilt(served, compressed(LAYERS[1], "gzip"))
    with Server(served) as server:
        refused(store, server, DigestMismatch, digest(compressed(LAYERS[1], "gzip")))


def test_a_manifest_that_is_not_its_digest(store: ImageStore, served: Layout) -> None:
    wanted = "sha256:" + "0" * 64
    whole = served.manifests[0]["digest"]
    with Server(served) as server:
        server.hook = lambda request: server.usual(f"/v2/x/manifests/{whole}") if wanted in request.path else None
        refused(store, server, DigestMismatch, wanted, whole, name=f"x@{wanted}")


def test_a_header_that_promises_another_digest(store: ImageStore, served: Layout) -> None:
    with Server(served) as server:
        usual = server.usual("/v2/x/manifests/latest")
        headers = {"Docker-Content-Digest": "sha256:" + "1" * 64}
        server.hook = lambda request: usual._replace(headers=headers) if "manifests" in request.path else None
        refused(store, server, DigestMismatch)


def test_a_layer_longer_than_said_is_not_read_to_its_end(store: ImageStore, served: Layout) -> None:
    with Server(served) as server:
        endless = Answer(body=bytes(30_000_000))
        server.hook = lambda request: endless if digest(compressed(LAYERS[0], "gzip")) in request.path else None
        refused(store, server, DigestMismatch)


def test_a_connection_that_breaks(store: ImageStore, served: Layout) -> None:
    with Server(served) as server:

        def cut(request: Request) -> Answer | None:
            return server.usual(request.path)._replace(cut=500_000) if "/blobs/" in request.path else None

        server.hook = cut
        refused(store, server, RegistryError, "the connection ended after 500000 bytes", "pull again")


def test_a_diff_id_that_is_not_the_layers(store: ImageStore, layout: Layout) -> None:
    lies = [digest(LAYERS[0]), digest(b"another")]
    with Server(layout.tag(layout.image(LAYERS[:2], diff_ids=lies), "latest")) as server:
        with pytest.raises(DigestMismatch, match="do not fit"):
            store.pull(f"{server.host}/x")
    assert store.list() == []
    assert len(os.listdir(store.root / "snapshots")) == 1, "the good layer below is kept for the next try"


def test_more_diff_ids_than_layers(store: ImageStore, layout: Layout) -> None:
    lies = [digest(LAYERS[0])] * 2
    with Server(layout.tag(layout.image(LAYERS[:1], diff_ids=lies), "latest")) as server:
        refused(store, server, ImageError, "its config speaks of 2 layers, its manifest of 1")


def test_a_full_disk(served: Layout, tmp_path: Path) -> None:
    """The store has room for one of three layers; then it has room, and the pull goes on."""
    small = tmp_path / "small"
    small.mkdir()
    mount.mount("tmpfs", str(small), "tmpfs", 0, "size=5m")
    try:
        store = ImageStore(small / "store")
        with Server(served) as server:
            refused(store, server, ImageError, "No space left on device", "(free space there")
            mount.mount("tmpfs", str(small), "tmpfs", MS_REMOUNT, "size=50m")
            assert store.pull(f"{server.host}/x").diff_ids == tuple(map(digest, LAYERS))
    finally:
        mount.umount2(str(small))


def test_a_store_that_cannot_be_written_to(served: Layout, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        Server(served) as server,
        pytest.raises(ImageError, match=r"cannot change the image store .*: Not a directory"),
    ):
        ImageStore(tmp_path / "file/store").pull(f"{server.host}/x")


def test_a_hostile_layer(store: ImageStore, layout: Layout, tmp_path: Path) -> None:
    with Server(layout.tag(layout.image([layer(entry("../../../escaped"))]), "latest")) as server:
        refused(store, server, HostileLayer, "'../../../escaped'")
    assert not list(tmp_path.rglob("escaped"))


def with_config(kind: str, config: str, size: int, layer_type: str = "") -> bytes:
    """Return a manifest that names this config, and one layer where its type is given."""
    layers = [{"mediaType": layer_type, "digest": SOME, "size": 1}] if layer_type else []
    return json.dumps({"config": {"mediaType": kind, "digest": config, "size": size}, "layers": layers}).encode()


@pytest.mark.parametrize(
    ("document", "kind", "words"),
    [
        (b"<html>welcome</html>", ImageError, "not what an image consists of"),
        (b"{}", ImageError, "neither an index nor a manifest"),
        (b'{"schemaVersion":1,"fsLayers":[]}', Unsupported, "schema 1"),
        (b'{"manifests":[]}', ImageError, "not there for linux/"),
        (b'{"manifests":"x"}', ImageError, "not what an image consists of"),
        (b"[" * 100_000, ImageError, "not what an image consists of"),
        (b"{" + b" " * (5 << 20), RegistryError, "longer than"),
        (with_config(HELM, SOME, 1), Unsupported, f"an artifact ({HELM})"),
        (with_config(CONFIG, "../../x", 1), Unsupported, "only sha256"),
        (with_config(CONFIG, "sha512:" + "0" * 128, 1), Unsupported, "only sha256"),
        (with_config(CONFIG, SOME, -1), ImageError, "not what an image consists of"),
        (with_config(CONFIG, SOME, 99999999), ImageError, "its config has 99999999 bytes"),
        (with_config(CONFIG, SOME, 2, f"{LAYER}+gzip+encrypted"), Unsupported, "is encrypted"),
        (with_config(CONFIG, SOME, 2, "text/plain"), Unsupported, "is text/plain"),
    ],
    ids=range(14),
)
def test_documents_that_are_no_image(
    store: ImageStore, served: Layout, document: bytes, kind: type[ImageError], words: str
) -> None:
    with Server(served, lambda request: Answer(body=document) if "manifests" in request.path else None) as server:
        refused(store, server, kind, words)


def test_indexes_that_go_round_in_circles(store: ImageStore, layout: Layout) -> None:
    inner = layout.image(LAYERS[:1])
    for _ in range(5):
        inner = {**layout.index(inner), "platform": inner["platform"]}
    with Server(layout.tag(inner, "latest")) as server:
        refused(store, server, ImageError, "nested more than 3 deep")


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (error(404, "NAME_UNKNOWN", "repository name not known"), NotFound, "has no such repository"),
        (error(404, "MANIFEST_UNKNOWN", "manifest unknown"), NotFound, "has no such tag"),
        (Answer(404, b"not here"), NotFound, "has no such tag"),
        (error(403, "DENIED", "requested access is denied"), RegistryError, "requested access is denied (403)"),
        (error(429, "TOOMANYREQUESTS", "slow down"), RegistryError, "limits how often"),
        (Answer(500, b"<html>"), RegistryError, "(500)"),
        (Answer(401), RegistryError, "asks for nothing known"),
        (error(401, "UNAUTHORIZED", "x", WWW_Authenticate='Basic realm="r"'), RegistryError, "a user name and a pass"),
        (error(401, "UNAUTHORIZED", "x", WWW_Authenticate="Negotiate"), RegistryError, "asks for Negotiate"),
        (error(401, "U", "x", WWW_Authenticate='Bearer realm="ftp://x/"'), RegistryError, "must be an https address"),
    ],
)
def test_what_a_registry_says(
    store: ImageStore, served: Layout, answer: Answer, kind: type[MinirtError], words: str
) -> None:
    with Server(served, lambda _: answer) as server:
        refused(store, server, kind, words)


def test_a_token_for_anonymous(store: ImageStore, served: Layout) -> None:
    with Server(served) as server:
        challenge = f'Bearer realm="http://{server.host}/token",service="s s",scope="repository:x:pull"'

        def hook(request: Request) -> Answer | None:
            if request.path.startswith("/token"):
                assert request.path == "/token?service=s+s&scope=repository%3Ax%3Apull"
                assert "Authorization" not in request.headers
                return Answer(body=b'{"access_token":"t0k"}')
            if request.headers.get("Authorization") != "Bearer t0k":
                return error(401, "UNAUTHORIZED", "log in", WWW_Authenticate=challenge)
            return None

        server.hook = hook
        assert store.pull(f"{server.host}/x").diff_ids == tuple(map(digest, LAYERS))
        assert len(server.asked("/token")) == 1


def test_a_password(store: ImageStore, served: Layout) -> None:
    right = "Basic " + base64.b64encode(b"me:secret").decode()
    with Server(served) as server:

        def hook(request: Request) -> Answer | None:
            if request.headers.get("Authorization") != right:
                return error(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate='Basic realm="r"')
            return None

        server.hook = hook
        with pytest.raises(RegistryError, match=r"authentication required \(401\)"):
            store.pull(f"{server.host}/x", credentials=Credentials("me", "wrong"))
        assert store.pull(f"{server.host}/x", credentials=Credentials("me", "secret")).names


def test_a_redirect_takes_no_credentials_along(store: ImageStore, served: Layout) -> None:
    with Server(served) as blobs, Server(served) as server:

        def hook(request: Request) -> Answer | None:
            if "Authorization" not in request.headers:
                return error(401, "UNAUTHORIZED", "log in", WWW_Authenticate='Basic realm="r"')
            if "/blobs/" in request.path:
                return Answer(307, headers={"Location": f"http://{blobs.host}{request.path}"})
            return None

        server.hook = hook
        assert store.pull(f"{server.host}/x", credentials=Credentials("me", "secret")).names
        assert len(blobs.requests) == 4
        assert not [request for request in blobs.requests if "Authorization" in request.headers]


def test_a_proxy_of_the_environment(store: ImageStore, served: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(served) as proxy:
        proxy.hook = lambda request: proxy.usual("/" + request.path.split("/", 3)[3])
        for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", f"http://user:word@{proxy.host}")
        assert store.pull("registry.example/x", plain_http=True).names
        assert proxy.requests[0].path == "http://registry.example/v2/x/manifests/latest"
        assert proxy.requests[0].headers["Proxy-Authorization"] == "Basic dXNlcjp3b3Jk"
        monkeypatch.setenv("NO_PROXY", "registry.example")
        with pytest.raises(RegistryError, match="resolve"):
            store.pull("registry.example/x", plain_http=True)


def test_the_second_pull_asks_for_no_blob(store: ImageStore, served: Layout) -> None:
    with Server(served) as server:
        first = store.pull(f"{server.host}/x")
        before = len(server.requests)
        assert store.pull(f"{server.host}/x") == first
        assert len(server.requests) - before == 1
        assert store.pull(f"{server.host}/y").names == (f"{server.host}/x:latest", f"{server.host}/y:latest")
        assert len(server.requests) - before == 2


def test_a_tag_that_moves(store: ImageStore, layout: Layout) -> None:
    with Server(layout.tag(layout.image(LAYERS[:1]), "latest")) as server:
        old = store.pull(f"{server.host}/x")
        layout.manifests.clear()
        layout.tag(layout.image(LAYERS[:2]), "latest")
        new = store.pull(f"{server.host}/x")
        assert store.get(f"{server.host}/x") == new
        assert store.get(old.id).names == ()


Stall = Callable[[Request], bool]


@pytest.mark.parametrize("at", ["manifests", "config", *range(3)])
def test_killed_while_it_downloads(served: Layout, tmp_path: Path, at: str | int) -> None:
    """kill -9 with the n-th thing half downloaded; the next pull fetches what is missing, and no more."""
    blobs = [digest(compressed(one, "gzip")) for one in LAYERS]
    minirt, store = Minirt(tmp_path / "store", tmp_path / "state"), ImageStore(tmp_path / "store")
    with Server(served) as server:
        wanted = blobs[at] if isinstance(at, int) else "manifests" if at == "manifests" else "/blobs/"
        stalled = StallOnce(server, wanted)
        server.hook = stalled
        with minirt.start("image", "pull", f"{server.host}/x") as process:
            await_true(stalled.reached.is_set, f"the request for {wanted}")
            others = [blob for blob in blobs if blob != wanted] if isinstance(at, int) else []
            there = store.root / "blobs/sha256"
            await_true(lambda: all((there / blob[7:]).exists() for blob in others), "the other layers")
            process.send_signal(signal.SIGKILL)
        server.released.set()
        assert store.list() == []
        asked_before = len(server.requests)
        image = store.pull(f"{server.host}/x")
        again = [request.path for request in server.requests[asked_before:]]
    assert not [path for path in again for blob in others if blob in path], "what was complete is not fetched again"
    assert os.listdir(store.root / "tmp") == [".lock"]
    assert set(facts(Snapshots(store.root).prepare("c", image).lowers[0])) == {".", "file2"}


class StallOnce:
    """A hook that holds back one answer in the middle, and lets all others through."""

    def __init__(self, server: Server, wanted: str) -> None:
        import threading

        self._server, self._wanted = server, wanted
        self.reached = threading.Event()

    def __call__(self, request: Request) -> Answer | None:
        if self._wanted not in request.path or self.reached.is_set():
            return None
        self.reached.set()
        self._server.released.wait(60)
        return self._server.usual(request.path)._replace(cut=0)


@pytest.mark.parametrize("nth", range(1, 4))
def test_killed_while_it_unpacks(served: Layout, tmp_path: Path, nth: int) -> None:
    minirt, store = Minirt(tmp_path / "store", tmp_path / "state"), ImageStore(tmp_path / "store")
    with Server(served) as server:
        with minirt.start("image", "pull", f"{server.host}/x") as process:
            assert process.stderr
            unpacking = 0
            while unpacking < nth:
                unpacking += "Unpacking" in process.stderr.readline()
            process.send_signal(signal.SIGKILL)
        image = store.pull(f"{server.host}/x")
    lowers = Snapshots(store.root).prepare("c", image).lowers
    assert [sorted(facts(lower)) for lower in lowers] == [[".", f"file{count}"] for count in (2, 1, 0)]
    assert os.listdir(store.root / "tmp") == [".lock"]
    store.remove(image.id, force=True)
    Snapshots(store.root).remove("c")
    assert os.listdir(store.root / "blobs/sha256") == []
    assert os.listdir(store.root / "snapshots") == ["containers"]


def test_interrupted_by_the_keyboard(served: Layout, tmp_path: Path) -> None:
    minirt, store = Minirt(tmp_path / "store", tmp_path / "state"), ImageStore(tmp_path / "store")
    with Server(served) as server:
        stalled = StallOnce(server, digest(compressed(LAYERS[0], "gzip")))
        server.hook = stalled
        with minirt.start("image", "pull", f"{server.host}/x") as process:
            await_true(stalled.reached.is_set, "the layer's request")
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(20) == 130
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    nothing_new(store)


def test_many_at_once(served: Layout, tmp_path: Path) -> None:
    """Six pulls of one image into one store, and removals in between: the end is one whole image."""
    minirt, store = Minirt(tmp_path / "store", tmp_path / "state"), ImageStore(tmp_path / "store")
    with Server(served) as server:
        name = f"{server.host}/x"
        running = [minirt.start("image", "pull", "-q", name) for _ in range(6)]
        while any(process.poll() is None for process in running):
            minirt("image", "rm", name)
        assert [process.communicate()[1] for process in running] == [""] * 6
        image = store.pull(name)
    assert [sorted(facts(one)) for one in Snapshots(store.root).prepare("c", image).lowers] == [
        [".", f"file{count}"] for count in (2, 1, 0)
    ]
    assert os.listdir(store.root / "tmp") == [".lock"]
    assert os.listdir(store.root / "trash") == []
