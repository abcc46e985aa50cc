"""diff, export and commit: what a container has made of its image, side by side with docker."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minirt.cgroups import lifecycle
from minirt.cgroups import tree as cgroup_tree
from minirt.errors import InvalidInput
from minirt.images import disk
from minirt.images.archive import whole_file
from minirt.images.commit import Commit, apply
from minirt.images.snapshots import Snapshots
from minirt.images.store import ImageStore
from tests.command import COMMAND, Minirt
from tests.integration.images.conftest import Push
from tests.integration.images.making import Layout, entry, layer
from tests.peers.daemon import output
from tests.peers.docker import Dockerd
from tests.peers.podman import Podman

pytestmark = [pytest.mark.root, pytest.mark.needs("cgroup2_tree", "busybox")]
WORK = """
echo new > /etc/new; rm /etc/group; echo changed >> /etc/passwd; chmod 700 /var
mkdir -p /srv/deep/er; echo x > '/srv/deep/er/a name'; ln -s /etc/new /srv/link; ln /etc/new /srv/hard
rm -r /root; mkdir /root; touch /root/.again; mkfifo /tmp/pipe; touch -t 202001010000 /srv/old
rm /bin/vi; mkdir /bin/vi; chown 12:34 /srv/old; chmod 4755 /srv/old
"""


@pytest.fixture
def worked(minirt: Minirt, busybox_archives: list[Path]) -> str:
    """A container of the image that docker has, too; it has changed things, and ended."""
    minirt.output("image", "load", "-q", busybox_archives[0])
    minirt.output("run", "--name", "web", "--network", "none", "localhost/busybox", "sh", "-c", WORK)
    return "web"


@pytest.mark.peer
@pytest.mark.needs("docker")
def test_diff_is_dockers(minirt: Minirt, dockerd: Dockerd, worked: str) -> None:
    dockerd.output("run", "--name", "web", "--network", "none", "localhost/busybox", "sh", "-c", WORK)
    ours, theirs = minirt.output("diff", worked).splitlines(), dockerd.output("diff", "web").splitlines()
    dockerd.output("rm", "web")
    minirt.output("rm", worked)
    assert sorted(ours) == sorted(theirs)
    assert ours == sorted(ours, key=lambda line: line[2:])
    assert "D /etc/group" in ours


def test_no_change(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "--name", "web", "--network", "none", busybox, "true")
    assert minirt.output("diff", "web") == ""
    minirt.output("rm", "web")
    assert "there is no container" in minirt("diff", "web").stderr


def _listed(archive: bytes, ignored: Callable[[str], bool]) -> dict[str, tuple[Any, ...]]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for info in tar:
            name = info.name.removeprefix("./").strip("/")
            content = tar.extractfile(info).read() if info.isreg() else b""  # type: ignore[union-attr]
            if not ignored(name):
                found[name] = (
                    info.type,
                    info.mode & 0o7777,
                    info.uid,
                    info.gid,
                    info.linkname.removeprefix("./"),
                    content,
                )
    return found


def _mounted_on(name: str) -> bool:
    """Say whether docker or minirt mounts something there, or whether it is the root or the hour's."""
    return name.split("/", maxsplit=1)[0] in {"dev", "proc", "sys", ".dockerenv", "", "."} or name in {
        *("etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "etc")
    }  # fmt: skip


@pytest.mark.peer
@pytest.mark.needs("docker")
def test_export_is_dockers(minirt: Minirt, dockerd: Dockerd, worked: str, tmp_path: Path) -> None:
    dockerd.output("run", "--name", "web", "--network", "none", "localhost/busybox", "sh", "-c", WORK)
    dockerd.output("export", "--output", tmp_path / "theirs.tar", "web")
    dockerd.output("rm", "web")
    minirt.output("export", "--output", tmp_path / "ours.tar", worked)
    streamed = subprocess.run([COMMAND, "export", worked], env=minirt.env, capture_output=True, check=True).stdout
    minirt.output("rm", worked)
    ours, theirs = (_listed((tmp_path / f"{who}.tar").read_bytes(), _mounted_on) for who in ("ours", "theirs"))
    hard = {"etc/new", "srv/hard"}  # which of them is the link is for each to choose
    assert {name: one for name, one in ours.items() if name not in hard} == {
        name: one for name, one in theirs.items() if name not in hard
    }
    assert {ours[name][0] for name in hard} == {tarfile.REGTYPE, tarfile.LNKTYPE}
    with tarfile.open(tmp_path / "ours.tar") as tar:
        assert tar.getmembers()[0].isdir()
    assert streamed == (tmp_path / "ours.tar").read_bytes()


@pytest.mark.peer
@pytest.mark.needs("docker", "podman")
def test_a_commit_runs_here_and_in_docker_and_podman(
    minirt: Minirt, dockerd: Dockerd, podman: Podman, busybox: str, tmp_path: Path
) -> None:
    run = ["run", "-d", "--name", "web", "--network", "none", "-e", "A=1", "-w", "/srv", busybox]
    minirt.output(*run, "sh", "-c", f"{WORK}trap exit TERM; touch /done; sleep 60 & wait")
    minirt.output("exec", "web", "sh", "-c", "until [ -e /done ]; do sleep 0.1; done; rm /done")
    changes = ["-c", 'CMD ["cat", "/etc/new", "deep/er/a name"]', "-c", 'LABEL who="me and you"', "-c", "EXPOSE 80"]
    made = minirt.output("commit", "-a", "me", "-m", "why", *changes, "web", "localhost/made:1")
    assert minirt.output("exec", "web", "echo", "still runs") == "still runs"
    diff = minirt.output("diff", "web")
    minirt.output("rm", "-f", "web")
    (found,) = json.loads(minirt.output("image", "inspect", "localhost/made:1"))
    assert found["Id"] == made
    config = found["Config"]
    assert (config["WorkingDir"], config["Labels"], list(config["ExposedPorts"])) == (
        *("/srv", {"who": "me and you"}, ["80/tcp"]),
    )
    assert "A=1" in config["Env"]
    assert len(found["RootFS"]["Layers"]) == 2
    assert "why" in minirt.output("image", "history", "localhost/made:1").splitlines()[1]
    told = "new\nx"
    looks = ["sh", "-c", "ls -d /etc/group /root/* /bin/vi /srv/link; stat -c '%a %u %g %Y' /srv/old; cat /srv/hard"]
    seen = minirt("run", "--rm", "--network", "none", "localhost/made:1", *looks).stdout
    assert minirt.output("run", "--rm", "--network", "none", "localhost/made:1") == told
    minirt.output("image", "save", "-o", tmp_path / "made.tar", "localhost/made:1")
    dockerd.output("load", "--input", tmp_path / "made.tar")
    assert dockerd.output("run", "--rm", "--network", "none", "localhost/made:1") == told
    assert dockerd("run", "--rm", "--network", "none", "localhost/made:1", *looks).stdout == seen
    assert "4755 12 34 " in seen
    podman.output("load", "--input", tmp_path / "made.tar")
    assert podman.output("run", "--rm", "--network", "none", "localhost/made:1") == told
    minirt.output("run", "--name", "again", "--network", "none", busybox, "true")
    again = minirt.output("commit", "again")
    assert again in _ids(minirt)
    minirt.output("rm", "again")
    assert "D /etc/group" in diff


def _ids(minirt: Minirt) -> list[str]:
    return minirt.output("image", "ls", "-q", "--no-trunc").split()


def test_commits_that_cannot_be(minirt: Minirt, worked: str) -> None:
    for words, why in (
        (["-c", "RUN x", worked], "RUN is none that a commit can make"),
        (["-c", "CMD", worked], "it says nothing"),
        (["-c", "ENV A=1 B", worked], "'B' is no KEY=VALUE"),
        (["-c", 'CMD ["a"', worked], "write a list as"),
        ([worked, "NOT A NAME"], "NOT A NAME"),
        (["nobody"], "there is no container"),
    ):
        refused = minirt("commit", *words)
        assert (refused.returncode, why in refused.stderr) == (125, True), refused.stderr
    minirt.output("image", "rm", "-f", "localhost/busybox")
    assert "it is not in the store" in minirt("commit", worked).stderr
    minirt.output("rm", worked)
    assert os.listdir(minirt.root / "blobs/sha256") == []
    assert minirt.output("image", "fsck") == "nothing is wrong"


@pytest.mark.needs("skopeo", "registry")
def test_a_commit_on_dockers_own_kind_of_image(push: Push, store: ImageStore, layout: Layout, tmp_path: Path) -> None:
    """Its layers are docker's, and the new manifest, which is OCI's, says so in OCI's words."""
    name = push(layout.tag(layout.image([layer(entry("below", b"b"))]), "latest"), docker=True)
    base = store.pull(name)
    overlay = Snapshots(store.root).prepare("c", base)
    (overlay.upper / "above").write_text("a")
    made = store.commit(base.id, overlay, lambda _: False, Commit({"User": "7"}, "by hand"), "localhost/made:1")
    assert (made.config.user, len(made.diff_ids), made.diff_ids[0]) == ("7", 2, base.diff_ids[0])
    with whole_file(tmp_path / "made.tar") as target:
        store.save(["localhost/made:1"], target)
    kinds = json.loads(output("skopeo", "inspect", "--raw", f"oci-archive:{tmp_path}/made.tar"))["layers"]
    assert {one["mediaType"] for one in kinds} == {"application/vnd.oci.image.layer.v1.tar+gzip"}
    output("skopeo", "copy", f"oci-archive:{tmp_path}/made.tar", f"dir:{tmp_path}/copied")


def test_a_freeze_that_a_dead_commit_left(minirt: Minirt, busybox: str) -> None:
    """As if kill -9 had come while the container's files were read."""
    container = minirt.output("run", "-d", "--network", "none", busybox, "sleep", "60")
    tree = cgroup_tree.find()
    cgroup = tree.at(json.loads((minirt.state / f"containers/{container}/container.json").read_text())["cgroup"])
    lifecycle.freeze(cgroup)
    assert f"removed the freeze of container {container}" in minirt.output("system", "prune")
    assert not lifecycle.is_frozen(cgroup)
    lifecycle.freeze(cgroup)
    with disk.flocked(minirt.root / "snapshots/containers" / container):
        assert minirt.output("system", "prune") == "nothing to remove"
        assert lifecycle.is_frozen(cgroup), "a commit that lives is left alone"
    minirt.output("rm", "-f", container)


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("CMD echo hi", "Cmd", ["/bin/sh", "-c", "echo hi"]),
        ('entrypoint ["a","b"]', "Entrypoint", ["a", "b"]),
        ("ENV A=new C='x y'", "Env", ["B=2", "A=new", "C=x y"]),
        ("ENV A old form", "Env", ["B=2", "A=old form"]),
        ("EXPOSE 80 53/udp", "ExposedPorts", {"80/tcp": {}, "53/udp": {}}),
        ('VOLUME ["/a b"]', "Volumes", {"/a b": {}}),
        ("LABEL x=1", "Labels", {"x": "1"}),
        ("STOPSIGNAL SIGINT", "StopSignal", "SIGINT"),
        ("USER 7:8", "User", "7:8"),
        ("WORKDIR /a b", "WorkingDir", "/a b"),
    ],
)
def test_changes(line: str, field: str, value: Any) -> None:
    config: dict[str, Any] = {"Env": ["A=1", "B=2"]}
    apply(config, line)
    assert config[field] == value


def test_quotes_that_do_not_end() -> None:
    with pytest.raises(InvalidInput, match="close the quotes"):
        apply({}, "ENV A='x")
