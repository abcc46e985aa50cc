"""Images given to Debian's docker-registry, and taken from there by others."""

import json
import urllib.request
from pathlib import Path

import pytest

from minirt.images import push
from minirt.images.store import ImageStore
from tests.command import Minirt
from tests.integration.images.making import Layout, digest
from tests.integration.registries.conftest import NAME
from tests.peers.daemon import output
from tests.peers.docker import Dockerd
from tests.peers.faults import Asked, Fault, Proxy
from tests.peers.podman import Podman
from tests.peers.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.needs("registry")]


def fresh(tmp_path: Path, name: str = "fresh") -> ImageStore:
    return ImageStore(tmp_path / name)


def test_what_is_pushed_is_pulled(registry: Registry, made: ImageStore, minirt: Minirt, tmp_path: Path) -> None:
    name = f"{registry.address}/push/plain:v1"
    done = minirt("image", "push", NAME, name)
    assert (done.returncode, done.stdout) == (0, f"{name}\n"), done.stderr
    assert done.stderr.startswith(f"Pushing {name}\n")
    assert done.stderr.count("Pushed") == 4
    pulled = fresh(tmp_path).pull(name)
    assert pulled.id == made.get(NAME).id
    assert f"Digest: {pulled.digests[0].partition('@')[2]}" in done.stderr
    again = minirt("image", "push", NAME, name)
    assert again.stderr.count("Already there") == 4
    assert minirt.output("image", "push", "--quiet", NAME, name) == name


@pytest.mark.needs("skopeo")
def test_skopeo_takes_it(registry: Registry, made: ImageStore, tmp_path: Path) -> None:
    name = f"{registry.address}/push/skopeo:v1"
    pushed = made.push(NAME, name)
    told = json.loads(output("skopeo", "inspect", "--tls-verify=false", f"docker://{name}"))
    assert told["Digest"] == pushed
    output("skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path}/copied:v1")
    assert fresh(tmp_path).load(tmp_path / "copied")[0].diff_ids == made.get(NAME).diff_ids


@pytest.mark.peer
@pytest.mark.needs("docker", "busybox")
def test_docker_runs_it_and_gives_it_back(
    registry: Registry, dockerd: Dockerd, busybox_archives: list[Path], tmp_path: Path
) -> None:
    store = fresh(tmp_path)
    store.load(busybox_archives[0])
    name = f"{registry.address}/push/docker:v1"
    store.push("localhost/busybox", name)
    dockerd.output("pull", name)
    assert dockerd.output("run", "--rm", "--network", "none", name, "echo", "it runs") == "it runs"
    dockerd.output("tag", name, f"{name}-back")
    dockerd.output("push", f"{name}-back")
    assert fresh(tmp_path, "back").pull(f"{name}-back").diff_ids == store.get("localhost/busybox").diff_ids


@pytest.mark.peer
@pytest.mark.needs("podman", "busybox")
def test_podman_runs_it_and_gives_it_back(
    registry: Registry, podman: Podman, busybox_archives: list[Path], tmp_path: Path
) -> None:
    store = fresh(tmp_path)
    store.load(busybox_archives[0])
    name = f"{registry.address}/push/podman:v1"
    store.push("localhost/busybox", name)
    policy = ["--signature-policy", podman.directory / "policy.json"]
    podman.output("pull", *policy, "--tls-verify=false", name)
    assert podman.output("run", "--rm", "--network", "none", name, "echo", "it runs") == "it runs"
    podman.output("push", *policy, "--tls-verify=false", name, f"docker://{name}-back")
    assert fresh(tmp_path, "back").pull(f"{name}-back").diff_ids == store.get("localhost/busybox").diff_ids


def test_a_blob_is_mounted_from_another_repository(registry: Registry, made: ImageStore) -> None:
    made.push(NAME, f"{registry.address}/push/first:v1")
    made.pull(f"{registry.address}/push/first:v1")
    with Proxy(registry.address) as proxy:
        host = proxy.host
        made.pull(f"{host}/push/first:v1")
        made.push(f"{host}/push/first:v1", f"{host}/push/second:v1")
        assert proxy.count("POST", "mount=sha256") == 4
        assert proxy.count("PUT", "/blobs/") == 0


def test_a_large_blob_goes_in_chunks(
    registry: Registry, made: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "CHUNK_BYTES", 1_000_000)
    with Proxy(registry.address) as proxy:
        name = f"{proxy.host}/push/chunked:v1"
        made.push(NAME, name)
        assert proxy.count("PATCH", "/blobs/uploads/") == 4
        assert fresh(tmp_path).pull(name).id == made.get(NAME).id


@pytest.mark.parametrize("way", ["deaf", "deaf_after", "answer lost"])
def test_a_chunk_that_breaks_off_goes_on(
    registry: Registry, made: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(push, "CHUNK_BYTES", 1_000_000)
    broken = []

    def fault(asked: Asked) -> Fault | None:
        if asked.method != "PATCH" or not asked.headers["Content-Range"].startswith("1000000-") or broken:
            return None
        broken.append(asked)
        if way == "answer lost":
            return Fault(headers={"Content-Length": "10"}, body=b"", cut=0)
        return Fault(deaf=True) if way == "deaf" else Fault(deaf_after=300_000)

    with Proxy(registry.address, fault) as proxy:
        name = f"{proxy.host}/push/broken-{way.replace(' ', '-')}:v1"
        made.push(NAME, name)
        assert broken
        assert fresh(tmp_path).pull(name).id == made.get(NAME).id


def test_a_registry_that_fails_now_and_then(registry: Registry, made: ImageStore, tmp_path: Path) -> None:
    failed = set()

    def fault(asked: Asked) -> Fault | None:
        kind = (asked.method, asked.path.split("?")[0].split("/")[4])
        if kind in failed:
            return None
        failed.add(kind)
        return Fault(503) if asked.method != "PUT" else Fault(deaf=True)

    with Proxy(registry.address, fault) as proxy:
        name = f"{proxy.host}/push/failing:v1"
        made.push(NAME, name)
        assert len(failed) > 3
        assert fresh(tmp_path).pull(name).id == made.get(NAME).id


def test_tags_page_by_page(registry: Registry, made: ImageStore, minirt: Minirt) -> None:
    name = f"{registry.address}/push/tags"
    wanted = [f"v{count}" for count in range(5)]
    for tag in wanted:
        made.push(NAME, f"{name}:{tag}")
    assert sorted(minirt.output("image", "tags", name).split()) == wanted

    def pages(asked: Asked) -> Fault | None:
        """Answer as a registry with pages, which Debian's has not."""
        if "last=b" in asked.path:
            return Fault(body=b'{"tags":["c"]}')
        link = '</v2/push/tags/tags/list?n=2&last=b>; rel="next"'
        return Fault(body=b'{"tags":["a","b"]}', headers={"Link": link})

    with Proxy(registry.address, pages) as proxy:
        assert minirt.output("image", "tags", f"{proxy.host}/push/tags").split() == ["a", "b", "c"]
    missing = minirt("image", "tags", f"{registry.address}/push/none")
    assert missing.returncode == 125
    assert "has no such repository" in missing.stderr


def test_what_refers_to_an_image(registry: Registry, made: ImageStore, minirt: Minirt, tmp_path: Path) -> None:
    """This registry does not know the question: what refers is in an index with a tag by the digest's name."""
    name = f"{registry.address}/push/signed:v1"
    pushed = made.push(NAME, name)
    assert minirt.output("image", "referrers", name).split() == ["DIGEST", "ARTIFACT", "TYPE", "SIZE"]
    (tmp_path / "index").mkdir()
    layout = Layout(tmp_path / "index")
    one = layout.image([]) | {"artifactType": "application/x-signature"}
    other = layout.image([], arch="arm64") | {"artifactType": "application/x-sbom"}
    tag = pushed.replace(":", "-")
    index = layout.index(one, other)
    blobs = [blob.read_bytes() for blob in (layout.top / "blobs/sha256").iterdir()]
    for data in sorted(blobs, key=lambda data: (b'"manifests"' in data, b'"mediaType"' in data)):
        put(registry, "push/signed", data, tag if digest(data) == index["digest"] else "")
    assert "application/x-sbom" in minirt.output("image", "referrers", name)
    only = minirt.output("image", "referrers", "--type", "application/x-signature", name)
    assert one["digest"] in only
    assert other["digest"] not in only


def put(registry: Registry, repository: str, data: bytes, tag: str) -> None:
    """Put a blob into a registry by hand; a manifest or an index as that, too."""
    kind = json.loads(data).get("mediaType", "") if data.startswith(b"{") else ""
    base = f"http://{registry.address}/v2/{repository}"
    if kind:
        ask("PUT", f"{base}/manifests/{tag or digest(data)}", data, kind)
    else:
        ask("PUT", f"{ask('POST', f'{base}/blobs/uploads/', b'')}&digest={digest(data)}", data)


def ask(method: str, url: str, data: bytes, kind: str = "application/octet-stream") -> str:
    """Send something to a registry; return the Location of its answer."""
    request = urllib.request.Request(url, data, {"Content-Type": kind}, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.headers["Location"])


def test_push_refusals(registry: Registry, made: ImageStore, minirt: Minirt) -> None:
    for words, why in (
        ((NAME, "x@sha256:" + "0" * 64), "a digest cannot be given"),
        (("none", f"{registry.address}/x"), "it is not in the store"),
        ((NAME, "Bad"), "character 1, 'B'"),
        ((NAME, "127.0.0.1:1/x"), "Connection refused"),
    ):
        done = minirt("image", "push", *words)
        assert (done.returncode, done.stdout) == (125, ""), words
        assert why in done.stderr
