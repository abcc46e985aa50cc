"""The same Dockerfile, built by minirt, docker and podman: the same files and settings; both run what minirt built."""

import io
import json
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.command import Minirt
from tests.integration.builder.conftest import Context
from tests.peers.daemon import output
from tests.peers.docker import Dockerd
from tests.peers.podman import Podman

pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.needs("busybox", "cgroup2_tree")]
NAME = "localhost/built:by-minirt"
DOCKERFILE = """
    ARG BASE=localhost/busybox
    FROM $BASE AS tools
    RUN mkdir -p /out/sub && chmod 750 /out/sub && echo made > /out/sub/file && chown 3:4 /out/sub/file
    FROM $BASE
    RUN echo root:x:0:0::/:/bin/sh > /etc/passwd && echo nobody:x:65534:65534::/:/bin/sh >> /etc/passwd
    RUN echo www-data:x:33:33::/:/bin/sh >> /etc/passwd && echo nogroup:x:65534: > /etc/group
    RUN mkdir /home && touch /home/old
    ARG WHO=someone
    ENV GREETING="hello $WHO" EMPTY=
    LABEL a=1 b.c="d e"
    WORKDIR /work
    WORKDIR sub
    COPY file *.txt ./many/
    COPY --chown=www-data:nogroup dir /owned/
    COPY dir /plain
    COPY link-to-file /followed
    COPY --from=tools /out /from
    ADD some.tar /unpacked
    RUN echo "$GREETING" > greeting && rm /etc/group && ln -s greeting link && ln greeting hard
    RUN rm -r /home && mkdir /home && echo new > /home/file && chmod 1777 /plain
    EXPOSE 8080 53/udp
    VOLUME /data
    USER nobody
    STOPSIGNAL SIGINT
    SHELL ["/bin/sh", "-e", "-c"]
    ENTRYPOINT ["/bin/cat"]
    CMD ["/work/sub/greeting"]
"""
COPIES = r"""
    FROM localhost/busybox
    RUN mkdir -p /real/sub /there/inner && ln -s /real /link
    RUN ln -s ../real/sub /there/down && ln -s /nowhere /dangling
    RUN echo old > /there/top && chmod 700 /there/inner && ln -s /real/target /there/file && echo t > /real/target
    COPY dir /there
    COPY dir/inner /link/sub/new/
    COPY file /link/
    COPY a.txt b.txt /many/
    COPY ["a.txt", "/with space/b"]
    COPY --chown=7 dir /owned
    COPY d?r/*p /glob/
    COPY . /all/
    ADD some.tar a.txt /added/
    COPY --from=localhost/busybox /bin/sh /bin/busybox /tools/
    ENV A=1 B='single $A' C="double $A" D=es\ caped E=${A:+set} F=${NONE:-un$A}
    ENV OLD form of $A
    WORKDIR /abs/$A
    RUN ["sh", "-c", "echo $A > /exec"]
    LABEL "quoted key"="x" multi="a \
    b"
    VOLUME /one /two
    EXPOSE 1000 53/udp
    CMD echo $A > /dev/null && cat /exec
"""
MOUNTED = {"dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", ".dockerenv", "run"}


@pytest.fixture
def ours(minirt: Minirt, busybox_archives: list[Path]) -> Minirt:
    """A minirt with the same busybox as the others."""
    minirt.output("image", "load", busybox_archives[0])
    return minirt


@pytest.fixture
def filled(context: Context) -> Context:
    context.write("file", "file", 0o600)
    context.write("a.txt", "a")
    context.write("b.txt", "b", 0o755)
    context.write("dir/inner/deep", "deep")
    context.write("dir/ignored", "")
    context.write("dir/top", "top", 0o4755)
    (context.top / "dir/inner").chmod(0o750)
    (context.top / "dir/link").symlink_to("../nowhere")
    (context.top / "link-to-file").symlink_to("file")
    context.write(".dockerignore", "**/ignored\n")
    with tarfile.open(context.top / "some.tar", "w") as tar:
        info = tarfile.TarInfo("in/tar")
        info.size, info.mode, info.uid, info.gid = 3, 0o640, 11, 12
        tar.addfile(info, io.BytesIO(b"abc"))
    return context


def built(minirt: Minirt, context: Context, where: Path) -> Path:
    """Return an archive of what minirt builds."""
    minirt.output("build", "--network", "none", "-t", NAME, context.top, timeout_s=120)
    minirt.output("image", "save", "-o", where, NAME)
    return where


def files(archive: Path) -> dict[str, tuple[Any, ...]]:
    """Return kind, mode, owner, target and content of each thing in an exported file system."""
    found = {}
    with tarfile.open(archive) as tar:
        for info in tar.getmembers():
            name = info.name.removeprefix("./").rstrip("/")
            if name and name.partition("/")[0] not in MOUNTED and name not in MOUNTED:
                content = tar.extractfile(info) if info.isreg() else None
                facts = (info.type, oct(stat.S_IMODE(info.mode)), info.uid, info.gid, info.linkname.removeprefix("/"))
                found[name] = (*facts, content.read()[:100] if content else b"")
    return found


def settings(inspected: str) -> dict[str, Any]:
    """Return an image's settings as docker and podman show them both, empty ones left out."""
    config = json.loads(inspected)[0]["Config"]
    names = (
        "Env",
        "Cmd",
        "Entrypoint",
        "Labels",
        "ExposedPorts",
        "Volumes",
        "WorkingDir",
        "User",
        "StopSignal",
        "Shell",
    )
    return {name: config[name] for name in names if config.get(name)}


EACH = pytest.mark.parametrize(
    ("text", "said"), [(DOCKERFILE, "hello someone"), (COPIES, "1")], ids=["settings", "copies"]
)


@EACH
@pytest.mark.needs("docker")
def test_docker(dockerd: Dockerd, ours: Minirt, filled: Context, tmp_path: Path, text: str, said: str) -> None:
    filled.dockerfile(text)
    dockerd.output("load", "-i", built(ours, filled, tmp_path / "ours.tar"))
    assert dockerd.output("run", "--rm", "--network", "none", NAME) == said
    dockerd.output("build", "--network", "none", "-t", "localhost/built:by-docker", filled.top)
    exported = []
    for name in (NAME, "localhost/built:by-docker"):
        container = dockerd.output("create", name)
        dockerd.output("export", "-o", tmp_path / "out.tar", container)
        exported.append((settings(dockerd.output("image", "inspect", name)), files(tmp_path / "out.tar")))
    mine, theirs = exported
    theirs[0]["Labels"] = {key: value for key, value in theirs[0]["Labels"].items() if key in mine[0]["Labels"]}
    assert mine[0] == theirs[0]
    assert mine[1] == theirs[1]


@EACH
@pytest.mark.needs("podman")
def test_podman(podman: Podman, ours: Minirt, filled: Context, tmp_path: Path, text: str, said: str) -> None:
    filled.dockerfile(text)
    policy = ["--signature-policy", podman.directory / "policy.json"]
    podman.output("load", *policy, "-i", built(ours, filled, tmp_path / "ours.tar"))
    assert podman.output("run", "--rm", "--network", "none", NAME) == said
    podman.output("build", *policy, "--network", "none", "-t", "localhost/built:by-podman", filled.top)
    exported = []
    for name in (NAME, "localhost/built:by-podman"):
        container = podman.output("create", name)
        podman.output("export", "-o", tmp_path / "out.tar", container)
        exported.append((settings(podman.output("image", "inspect", name)), files(tmp_path / "out.tar")))
    mine, theirs = exported
    theirs[0]["Labels"] = {key: value for key, value in theirs[0]["Labels"].items() if key in mine[0]["Labels"]}
    assert mine[0] == theirs[0]
    assert mine[1] == theirs[1]


@pytest.mark.needs("umoci")
def test_umoci_unpacks_it(ours: Minirt, filled: Context, tmp_path: Path) -> None:
    archive = built(ours, filled.dockerfile(DOCKERFILE), tmp_path / "ours.tar")
    (tmp_path / "layout").mkdir()
    output("tar", "-xf", archive, "-C", tmp_path / "layout")
    tag = next(iter(json.loads((tmp_path / "layout/index.json").read_text())["manifests"]))
    ref = tag["annotations"]["org.opencontainers.image.ref.name"]
    output("umoci", "raw", "unpack", "--image", f"{tmp_path}/layout:{ref}", tmp_path / "unpacked")
    assert (tmp_path / "unpacked/work/sub/greeting").read_text() == "hello someone\n"
    assert not (tmp_path / "unpacked/etc/group").exists()
    assert [path.name for path in (tmp_path / "unpacked/home").iterdir()] == ["file"]
