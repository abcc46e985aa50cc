"""ImageService: pulled, listed, looked at, removed."""

import base64
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from minirt.crimessages import api_pb2 as cri
from tests.contract.cri.conftest import code_of
from tests.integration.images.making import Layout, entry, layer
from tests.integration.images.serving import Answer, Request, Server
from tests.peers import busybox
from tests.peers.cri import Runtime
from tests.peers.daemon import await_true
from tests.peers.serve import Server as Served

pytestmark = [pytest.mark.root, pytest.mark.peer]


def spec(name: str) -> cri.ImageSpec:
    return cri.ImageSpec(image=name)


def pull(runtime: Runtime, name: str, **fields: object) -> str:
    request = cri.PullImageRequest(image=spec(name), **fields)  # type: ignore[arg-type]
    return str(runtime.PullImage(request).image_ref)


def status(runtime: Runtime, name: str) -> cri.Image | None:
    found = runtime.ImageStatus(cri.ImageStatusRequest(image=spec(name)))
    return found.image if found.HasField("image") else None


def remove(runtime: Runtime, name: str) -> None:
    runtime.RemoveImage(cri.RemoveImageRequest(image=spec(name)))


def names(runtime: Runtime) -> list[str]:
    return sorted(name for image in runtime.ListImages(cri.ListImagesRequest()).images for name in image.repo_tags)


@pytest.fixture
def pulled(runtime: Runtime, pushed: str) -> Iterator[str]:
    """The id of an image from the registry; the image it shares everything with goes and comes back."""
    yield pull(runtime, pushed)
    remove(runtime, pushed)


def test_a_pulled_image_has_an_id_its_names_and_a_size(runtime: Runtime, pushed: str, pulled: str) -> None:
    found = status(runtime, pushed)
    assert found
    assert found.id == pulled
    assert pushed in found.repo_tags
    assert [digest.partition("@")[0] for digest in found.repo_digests] == [pushed.rpartition(":")[0]]
    assert found.size > 0


def test_an_image_is_found_by_id_tag_and_digest(runtime: Runtime, pushed: str, pulled: str) -> None:
    found = status(runtime, pushed)
    assert found
    for name in (found.id, found.id.removeprefix("sha256:"), pushed, found.repo_digests[0]):
        assert status(runtime, name) == found, name


def test_an_image_is_listed_once_whatever_its_names(runtime: Runtime, pushed: str, pulled: str) -> None:
    images = runtime.ListImages(cri.ListImagesRequest()).images
    assert [image.id for image in images].count(pulled) == 1
    assert pushed in names(runtime)


@pytest.mark.differs("containerd", "it lists all, whatever the filter")
def test_a_list_can_be_filtered(runtime: Runtime, pushed: str, pulled: str) -> None:
    def listed(name: str) -> list[str]:
        request = cri.ListImagesRequest(filter=cri.ImageFilter(image=spec(name)))
        return [image.id for image in runtime.ListImages(request).images]

    assert listed(pushed) == [pulled]
    assert listed("localhost/absent:1") == []


def test_what_is_absent_has_no_status_and_is_no_error(runtime: Runtime) -> None:
    assert status(runtime, "localhost/absent:1") is None
    assert status(runtime, "sha256:" + "0" * 64) is None


def test_what_is_absent_can_be_removed(runtime: Runtime) -> None:
    remove(runtime, "localhost/absent:1")


def test_pulling_twice_gives_the_same(runtime: Runtime, pushed: str, pulled: str) -> None:
    assert pull(runtime, pushed) == pulled


def test_several_may_pull_the_same_image_at_once(runtime: Runtime, pushed: str) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(pull(runtime, pushed))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    remove(runtime, pushed)


def test_by_digest_no_tag_is_added(runtime: Runtime, pushed: str, pulled: str) -> None:
    found = status(runtime, pushed)
    assert found
    before = names(runtime)
    assert pull(runtime, found.repo_digests[0]) == pulled
    assert names(runtime) == before


def test_a_tag_the_registry_does_not_have_is_not_found(runtime: Runtime, pushed: str) -> None:
    assert code_of(lambda: pull(runtime, pushed + "absent")) == grpc.StatusCode.NOT_FOUND
    assert pushed + "absent" not in names(runtime)


def test_nobody_at_the_address_is_an_error(runtime: Runtime) -> None:
    with pytest.raises(grpc.RpcError):
        pull(runtime, "127.0.0.1:1/absent:1")


def test_a_name_that_is_none_is_an_error(runtime: Runtime) -> None:
    with pytest.raises(grpc.RpcError):
        pull(runtime, "Not/A Name")


@pytest.mark.parametrize(
    "auth",
    [
        cri.AuthConfig(username="user", password="secret"),
        cri.AuthConfig(auth=base64.b64encode(b"user:secret").decode()),
    ],
)
def test_credentials_that_nobody_asks_for_do_no_harm(runtime: Runtime, pushed: str, auth: cri.AuthConfig) -> None:
    assert pull(runtime, pushed, auth=auth)
    remove(runtime, pushed)


def test_a_removed_image_is_gone_at_once(runtime: Runtime, pushed: str) -> None:
    pull(runtime, pushed)
    remove(runtime, pushed)
    remove(runtime, pushed)
    assert pushed not in names(runtime)
    assert status(runtime, pushed) is None


def test_several_may_remove_the_same_image_at_once(runtime: Runtime, pushed: str) -> None:
    pull(runtime, pushed)
    failed: list[grpc.RpcError] = []

    def once() -> None:
        try:
            remove(runtime, pushed)
        except grpc.RpcError as error:
            failed.append(error)

    threads = [threading.Thread(target=once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert status(runtime, pushed) is None


def test_the_file_system_of_images_is_known(runtime: Runtime) -> None:
    found = runtime.ImageFsInfo(cri.ImageFsInfoRequest()).image_filesystems[0]
    assert found.timestamp > 0
    assert found.fs_id.mountpoint.startswith("/")
    assert found.used_bytes.value > 0 or runtime.name == "containerd"
    assert found.inodes_used.value > 0 or runtime.name == "containerd"


def test_an_image_of_the_command_line_is_everybodys(runtime: Runtime) -> None:
    assert busybox.NAME in names(runtime)


KEPT = {".lock", "lease.json"}
"""What a job may leave: what it has verified is found again by the next try."""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "layout").mkdir()
    made = Layout(tmp_path / "layout")
    return made.tag(made.image([layer(entry("file", os.urandom(1_000_000)))]), "1")


@pytest.mark.parametrize("form", ["words", "base64"])
def test_credentials_are_given_to_who_asks_for_them(runtime: Runtime, layout: Layout, form: str) -> None:
    secret = base64.b64encode(b"user:secret").decode()

    def guard(request: Request) -> Answer | None:
        if request.headers.get("Authorization") == f"Basic {secret}":
            return None
        return Answer(401, headers={"Www-Authenticate": 'Basic realm="test"'})

    with Server(layout, guard) as server:
        name = f"{server.host}/private/image:1"
        good = cri.AuthConfig(username="user", password="secret") if form == "words" else cri.AuthConfig(auth=secret)
        for auth in (cri.AuthConfig(), cri.AuthConfig(username="user", password="wrong")):
            with pytest.raises(grpc.RpcError):
                pull(runtime, name, auth=auth)
        assert pull(runtime, name, auth=good)
        remove(runtime, name)


@pytest.mark.parametrize("auth", [cri.AuthConfig(auth="!!"), cri.AuthConfig(auth=base64.b64encode(b"x").decode())])
@pytest.mark.differs("containerd", "it does not look at them until the registry asks")
def test_credentials_that_are_none_are_refused(runtime: Runtime, pushed: str, auth: cri.AuthConfig) -> None:
    with pytest.raises(grpc.RpcError):
        pull(runtime, pushed, auth=auth)
    remove(runtime, pushed)


def test_a_pull_whose_time_is_up_leaves_nothing(runtime: Runtime, layout: Layout, minirt_server: Served) -> None:
    held = threading.Event()
    asked = threading.Event()

    def hold(request: Request) -> Answer | None:
        if "/blobs/" in request.path:
            asked.set()
            held.wait(5)
        return None

    with Server(layout, hold) as server:
        name = f"{server.host}/slow/image:1"
        request = cri.PullImageRequest(image=spec(name))
        assert code_of(lambda: runtime.PullImage(request, timeout=0.5)) == grpc.StatusCode.DEADLINE_EXCEEDED
        assert asked.is_set()
        held.set()
        jobs = minirt_server.minirt.root / "tmp"
        await_true(lambda: {path.name for path in jobs.rglob("*") if path.is_file()} <= KEPT, "the end of the job")
        assert name not in names(runtime)
