"""Images mounted in containers. Debian's containerd, 1.6, knows none."""

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from minirt.crimessages import api_pb2 as cri
from tests.command import Minirt
from tests.contract.cri.conftest import in_our_cgroup
from tests.contract.cri.test_userns import FIRST, USERS, of_container
from tests.contract.cri.test_userns import sandbox as users_sandbox
from tests.integration.images.making import Layout, entry, layer, symlink
from tests.peers.cri import Pods, Runtime
from tests.peers.serve import Server

pytestmark = pytest.mark.root
LOWER = layer(
    entry("gone", b"1"),
    entry("conf/sub/file", b"inside\n"),
    symlink("up", "../../../conf"),
    symlink("away", "/etc"),
    entry("owned", b"2", uid=7),
)
UPPER = layer(entry(".wh.gone"), entry("new", b"new\n"))
ONE, TWO = "localhost/layout:one", "localhost/layout:two"


@pytest.fixture
def images(minirt_server: Server, tmp_path: Path) -> Iterator[Minirt]:
    minirt = minirt_server.minirt
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.image([LOWER]), "one")
    layout.tag(layout.image([LOWER, UPPER]), "two")
    minirt.output("image", "load", "-q", layout.top)
    yield minirt
    for name in (ONE, TWO):
        minirt("image", "rm", "-f", name)


@pytest.fixture
def own(minirt_runtime: Runtime, images: Minirt, tmp_path: Path) -> Iterator[Pods]:
    (tmp_path / "logs").mkdir()
    found = Pods(minirt_runtime, tmp_path / "logs")
    yield found
    found.close()


def of(name: str, path: str = "", at: str = "/volume") -> cri.Mount:
    return cri.Mount(container_path=at, readonly=True, image=cri.ImageSpec(image=name), image_sub_path=path)


def test_the_whole_of_an_image_read_only(own: Pods) -> None:
    sandbox = own.run(linux=in_our_cgroup())
    script = "cat /volume/new; ls /volume; touch /volume/x 2>/dev/null || echo read-only; cat /one/conf/sub/file"
    mounts = [of(TWO), of(ONE, at="/one")]
    container = own.container(sandbox, "sh", "-c", script, mounts=mounts)
    assert own.ended(container).mounts == mounts
    assert own.log(container).split() == ["new", "away", "conf", "new", "owned", "up", "read-only", "inside"]


@pytest.mark.parametrize("path", ["conf/sub", "up/sub", "../../conf/./sub"])
def test_a_directory_of_an_image(own: Pods, path: str) -> None:
    """Links and dots that lead out of the image lead to its root."""
    sandbox = own.run(linux=in_our_cgroup())
    assert own.output(sandbox, "cat", "/volume/file", mounts=[of(TWO, path)]) == "inside\n"


def test_a_file_of_an_image(own: Pods) -> None:
    sandbox = own.run(linux=in_our_cgroup())
    assert own.output(sandbox, "cat", "/etc/new", mounts=[of(TWO, "new", "/etc/new")]) == "new\n"


@pytest.mark.parametrize(("name", "path"), [(TWO, "gone"), (ONE, "away"), ("localhost/none:x", "")])
def test_what_is_not_there_is_refused(own: Pods, name: str, path: str) -> None:
    with pytest.raises(grpc.RpcError, match="ImageVolumeMountFailed") as refused:
        own.create(own.run(linux=in_our_cgroup()), mounts=[of(name, path)])
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("path", ["", "conf/.."])
def test_in_a_user_namespace_its_users_are_those_on_disk(own: Pods, path: str) -> None:
    script = "cat /proc/self/uid_map; stat -c %u /one/owned /volume/owned; cat /volume/new"
    mounts = [of(ONE, at="/one"), of(TWO, path)]
    seen = own.output(users_sandbox(own, USERS), "sh", "-c", script, mounts=mounts, linux=of_container())
    assert seen.split() == ["0", str(FIRST), "65536", "7", "7", "new"]


def test_an_image_in_use_keeps_its_layers_until_the_container_goes(own: Pods, images: Minirt) -> None:
    container = own.container(own.run(linux=in_our_cgroup()), mounts=[of(TWO)])
    assert "stands on it" in images("image", "rm", TWO).stderr
    own.runtime.RemoveImage(cri.RemoveImageRequest(image=cri.ImageSpec(image=TWO)))
    images.output("system", "prune")
    assert own.exec(container, "cat", "/volume/new").stdout == b"new\n"
    before = len(os.listdir(images.root / "snapshots"))
    own.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container))
    assert len(os.listdir(images.root / "snapshots")) == before - 1


def test_nothing_of_it_is_mounted_on_the_host(own: Pods, minirt_server: Server) -> None:
    mounted = Path("/proc/self/mountinfo").read_text().count("overlay")
    container = own.container(own.run(linux=in_our_cgroup()), mounts=[of(TWO, "conf")])
    assert Path("/proc/self/mountinfo").read_text().count("overlay") == mounted
    assert own.exec(container, "cat", "/volume/sub/file").stdout == b"inside\n"
