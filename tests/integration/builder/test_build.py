"""What ``minirt build`` makes of Dockerfiles, seen from a container of the image."""

import gzip
import json
import os
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.command import Minirt
from tests.integration.builder.conftest import Context

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]
NAME = "localhost/built"


def build(minirt: Minirt, context: Context, *words: str) -> str:
    """Build without a network; return what it told of its progress."""
    done = minirt("build", "--network", "none", "-t", NAME, *words, context.top, timeout_s=120)
    assert done.returncode == 0, done.stderr
    return done.stderr


def inside(minirt: Minirt, command: str) -> str:
    return minirt.output("run", "--rm", "--network", "none", NAME, "sh", "-c", command)


def config(minirt: Minirt, name: str = NAME) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(minirt.output("image", "inspect", name))[0]["Config"]
    return found


def layers(minirt: Minirt, name: str = NAME) -> list[str]:
    found: list[str] = json.loads(minirt.output("image", "inspect", name))[0]["RootFS"]["Layers"]
    return found


def test_run_copy_and_settings(builder: Minirt, context: Context) -> None:
    context.write("hello", "hello from here")
    context.dockerfile("""
        FROM localhost/busybox
        ENV NAME="a b" OTHER=$PATH
        WORKDIR /work
        WORKDIR below/$NAME
        COPY hello greeting
        RUN cat greeting > said && echo "$NAME" >> said
        RUN ["sh", "-c", "echo exec form >> said"]
        USER www-data
        RUN id -un > /tmp/who
        ENTRYPOINT ["cat"]
        CMD ["said"]
        LABEL one=1 "two words"=x
        EXPOSE 80 90-91/udp
        VOLUME ["/data", "/more"]
        STOPSIGNAL SIGQUIT
        HEALTHCHECK --interval=1m30s --retries=2 CMD true
    """)
    told = build(builder, context)
    assert "Step 5/16 : COPY hello greeting\n" in told
    assert builder.output("run", "--rm", "--network", "none", NAME) == "hello from herea b\nexec form"
    assert config(builder) == {
        "User": "www-data",
        "ExposedPorts": {"80/tcp": {}, "90/udp": {}, "91/udp": {}},
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "NAME=a b",
                "OTHER=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Entrypoint": ["cat"],
        "Cmd": ["said"],
        "Volumes": {"/data": {}, "/more": {}},
        "WorkingDir": "/work/below/a b",
        "Labels": {"one": "1", "two words": "x"},
        "StopSignal": "SIGQUIT",
    }  # fmt: skip
    who = builder.output("run", "--rm", "--network", "none", "--entrypoint", "cat", NAME, "/tmp/who")
    assert who == "www-data"


def test_what_starting_a_container_leaves_is_not_in_the_layer(builder: Minirt, context: Context) -> None:
    context.dockerfile("FROM localhost/busybox\nRUN echo x > /made && rmdir /home\n")
    build(builder, context)
    builder.output("image", "save", "-o", context.top / "out.tar", NAME)
    with tarfile.open(context.top / "out.tar") as image:
        last = json.load(image.extractfile("manifest.json") or pytest.fail())[0]["Layers"][-1]
        with tarfile.open(fileobj=image.extractfile(last)) as layer:
            assert sorted(layer.getnames()) == [".wh.home", "made"]


def test_scratch_and_stages(builder: Minirt, context: Context) -> None:
    context.dockerfile("""
        ARG BASE=localhost/busybox
        FROM $BASE AS tools
        RUN mkdir /out && cp /bin/busybox /out/sh && touch /out/made
        FROM tools AS unused
        RUN exit 9
        FROM tools AS also
        FROM scratch
        COPY --from=tools /out/sh /bin/
        COPY --from=0 --chmod=0600 --chown=5:6 /out/made /
        COPY --from=localhost/busybox /etc/passwd /etc/
    """)
    told = build(builder, context)
    assert "exit 9" not in told
    assert "FROM tools AS also" not in told
    assert (
        inside(builder, "echo /*; exec /bin/sh -c 'test -f /made && echo there'")
        == "/bin /dev /etc /made /proc /sys\nthere"
    )
    assert len(layers(builder)) == 3
    build(builder, context, "--target", "tools")
    assert inside(builder, "ls /out") == "made\nsh"
    missing = builder("build", "--target", "nothing", context.top)
    assert missing.returncode == 125
    assert "cannot build the stage nothing: there is none (there are tools, unused, also)" in missing.stderr


def test_copies(builder: Minirt, context: Context) -> None:
    context.write("a.txt", "a", 0o640)
    context.write("b.txt", "b")
    context.write("dir/inner/deep", "deep", 0o755)
    context.write("dir/skipped.log", "")
    context.write("dir/kept.log", "")
    (context.top / "dir/link").symlink_to("inner/deep")
    (context.top / "outside").symlink_to("/etc/hostname")
    context.write(".dockerignore", "**/*.log\n!dir/kept.log\n")
    os.utime(context.top / "a.txt", ns=(0, 1_700_000_000_123_456_789))
    context.dockerfile("""
        FROM localhost/busybox
        RUN mkdir /usr && ln -s /real /usr/link && mkdir -p /real/sub && echo old > /real/sub/file
        COPY a.txt /one
        COPY a.txt b.txt /many/
        COPY *.txt /glob/
        COPY dir /dir
        COPY dir/ /usr/link/sub/
        COPY --chown=www-data:nogroup --chmod=700 dir/inner /owned
        COPY ["a.txt", "/with space/"]
        COPY a.txt /real/sub
        RUN mkdir -p /dir2/inner && chmod 700 /dir2/inner && ln -s /one /dir2/link
        COPY dir /dir2
        ADD b.txt /added/
    """)
    build(builder, context)
    facts = inside(builder, "stat -c '%n %a %u:%g' /one /owned /owned/deep /dir/inner/deep '/with space'")
    assert facts.splitlines() == [
        "/one 640 0:0",
        "/owned 755 33:65534",
        "/owned/deep 700 33:65534",
        "/dir/inner/deep 755 0:0",
        "/with space 755 0:0",
    ]
    assert inside(
        builder, "cd /many; echo *; cd /glob; echo *; cd /dir; echo *; cd /real/sub; echo *; cat /added/b.txt"
    ) == ("a.txt b.txt\na.txt b.txt\ninner kept.log link\na.txt file inner kept.log link\nb")
    assert (
        inside(builder, "readlink /dir/link; stat -c %y /one | cut -c1-26") == "inner/deep\n2023-11-14 22:13:20.123456"
    )


def test_an_archive_is_unpacked(builder: Minirt, context: Context) -> None:
    for end, mode in (("tar", "w"), ("tgz", "w:gz"), ("tar.bz2", "w:bz2"), ("txz", "w:xz")):
        with tarfile.open(context.top / f"one.{end}", mode) as tar:  # type: ignore[call-overload]
            info = tarfile.TarInfo(f"dir-{end}/suid")
            info.mode, info.uid, info.gid = 0o4755, 7, 8
            tar.addfile(info)
    (context.top / "zeros").write_bytes(bytes(5000))
    (context.top / "text.gz").write_bytes(gzip.compress(b"no archive"))
    (context.top / "text.zst").write_bytes(zstandard.compress(b"no archive " * 100))
    with tarfile.open(context.top / "plain.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("from-zst"))
    (context.top / "one.zst").write_bytes(zstandard.compress((context.top / "plain.tar").read_bytes()))
    context.dockerfile("""
        FROM localhost/busybox
        ADD zeros text.gz text.zst /as-it-is/
        ADD one.tar one.tgz one.tar.bz2 one.txz one.zst /x/
        COPY one.tar /y/
    """)
    build(builder, context)
    wanted = [f"/x/dir-{end}/suid 4755 7:8" for end in ("tar", "tar.bz2", "tgz", "txz")]
    assert inside(builder, "ls /as-it-is").split() == ["text.gz", "text.zst", "zeros"]
    assert "from-zst" in inside(builder, "ls /x")
    assert sorted(inside(builder, "stat -c '%n %a %u:%g' /x/*/suid; ls /y").splitlines()) == sorted(
        [*wanted, "one.tar"]
    )


def test_arguments(builder: Minirt, context: Context) -> None:
    context.dockerfile("""
        ARG WHO=nobody
        FROM localhost/busybox
        ARG WHO
        ARG OTHER=default
        ARG UNSET
        ARG TARGETARCH
        ENV KEPT=$OTHER
        RUN echo "$WHO $OTHER ${UNSET:-unset} $TARGETARCH" > /said
    """)
    build(builder, context)
    arch = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    assert inside(builder, "cat /said; echo $WHO$KEPT") == f"nobody default unset {arch}\ndefault"
    told = build(builder, context, "--build-arg", "WHO=me", "--build-arg", "OTHER=else", "--build-arg", "TYPO=1")
    assert "warning: no ARG asks for TYPO\n" in told
    assert inside(builder, "cat /said; echo $KEPT") == f"me else unset {arch}\nelse"


def test_the_cache(builder: Minirt, context: Context) -> None:
    context.write("file", "1")
    context.dockerfile("""
        FROM localhost/busybox AS first
        RUN : first; head -c 8 /dev/urandom | od > /random
        FROM localhost/busybox
        RUN head -c 8 /dev/urandom | od > /random
        COPY --from=first /random /from
        COPY file /
        RUN head -c 8 /dev/urandom | od > /after
    """)
    assert "Using cache" not in build(builder, context)
    before, first_id = layers(builder), builder.output("build", "-q", context.top)
    os.utime(context.top / "file")
    assert build(builder, context).count("Using cache") == 5
    assert builder.output("build", "-q", context.top) == first_id, "nothing changed: the same image, to the byte"
    context.write("file", "2")
    assert build(builder, context).count("Using cache") == 3
    after = layers(builder)
    assert (after[:3], after[3] != before[3], after[4] != before[4]) == (before[:3], True, True)
    context.write("file", "1")
    build(builder, context)
    assert layers(builder) == before
    assert "Using cache" not in build(builder, context, "--no-cache")
    assert layers(builder)[1] != before[1]
    builder.output("image", "rm", "-f", *set(builder.output("image", "ls", "-q").split()))
    assert builder("build", "-q", context.top).returncode == 125, "without its base nothing is built"


def test_a_command_that_fails(builder: Minirt, context: Context) -> None:
    context.dockerfile("FROM localhost/busybox\nRUN echo done\nRUN echo so it goes; exit 3\n")
    for words in ((), ("-q",)):
        done = builder("build", "--network", "none", "-t", NAME, *words, context.top)
        assert (done.returncode, done.stdout) == (125, "")
        assert "so it goes\n" in done.stderr
        why = "cannot build line 3 (RUN): 'echo so it goes; exit 3' ended with exit code 3 (its output is above)\n"
        assert done.stderr.endswith(f"minirt: {why}")
    assert builder("image", "inspect", NAME).returncode == 125
    assert not list((builder.root / "snapshots/containers").glob("*"))
    assert not list((builder.state / "containers").glob("*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_build_that_is_ended(builder: Minirt, context: Context, number: int, code: int) -> None:
    context.dockerfile("FROM localhost/busybox\nRUN echo made > /made\nRUN echo begun; sleep 1000\n")
    with builder.start("build", "--network", "none", context.top) as building:
        assert building.stderr
        while "begun" not in (line := building.stderr.readline()):
            assert line, "it ended"
        building.send_signal(number)
        assert building.wait(20) == code
    assert not list((builder.root / "snapshots/containers").glob("*"))
    assert not list((builder.state / "containers").glob("*"))
    context.dockerfile("FROM localhost/busybox\nRUN echo made > /made\n")
    assert "Using cache" in build(builder, context), "what was made before is still there"


def test_a_build_that_is_killed(builder: Minirt, context: Context) -> None:
    """system prune finds what it left: a container, its writable layer, a job's files."""
    context.dockerfile("FROM localhost/busybox\nRUN echo begun; sleep 1000\n")
    with builder.start("build", "--network", "none", context.top) as building:
        assert building.stderr
        while "begun" not in (line := building.stderr.readline()):
            assert line, "it ended"
        building.kill()
    builder.output("system", "prune")
    for container in builder.output("ps", "-aq").split():
        builder.output("rm", "-f", container)
    assert not list((builder.root / "snapshots/containers").glob("*"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("FROM localhost/missing", "it is not in the store"),
        ("FROM a b", "(FROM): 'a b' is not IMAGE, or IMAGE AS NAME"),
        ("FROM $NOTHING", "'$NOTHING' is not IMAGE"),
        ("FROM scratch\nCOPY nothing /", "line 2 (COPY): there is no nothing in the build's directory"),
        ("FROM scratch\nCOPY ../../etc/passwd /", "there is no ../../etc/passwd"),
        ("FROM scratch\nCOPY outside /", "there is no outside"),
        ("FROM scratch\nCOPY hidden /", "or .dockerignore hides it"),
        ("FROM scratch\nCOPY file file2 /x", "several sources go to '/x'"),
        ("FROM scratch\nCOPY file /x\nCOPY file /x/y", "line 3 (COPY): file cannot be copied to /x/y: "),
        ("FROM scratch\nCOPY --chmod=u+x file /", "--chmod=u+x is no mode"),
        ("FROM scratch\nCOPY --chown=nobody file /", "the image's /etc/passwd has no such user"),
        ("FROM scratch\nCOPY --from=$X file /", "--from takes no variables"),
        ("FROM scratch\nCOPY file", "it needs what to copy, and where to"),
        ("FROM scratch\nADD https://x/y /", "https://x/y is not on this machine (fetch it in a RUN)"),
        ("FROM scratch\nENV A", "A has no value"),
        ("FROM scratch\nENV A=1 B", "B is not KEY=VALUE"),
        ("FROM scratch\nENV A='1", "line 2 (ENV): "),
        ("FROM scratch\nEXPOSE http", "'http' is no port"),
        ("FROM scratch\nSHELL bash", "it is no JSON list"),
        ("FROM scratch\nHEALTHCHECK sometimes", "it is neither NONE nor CMD"),
        ("FROM scratch\nRUN true", "line 2 (RUN)"),
        ("FROM localhost/busybox\nRUN --network=lan true", "--network=lan is none"),
        ("FROM localhost/busybox\nUSER stranger\nRUN true", "no such user"),
    ],
)
def test_refusals(builder: Minirt, context: Context, text: str, why: str) -> None:
    context.write("file", "")
    context.write("file2", "")
    context.write("hidden", "")
    context.write(".dockerignore", "hidden\n")
    (context.top / "outside").symlink_to("/etc/hostname")
    before = builder.output("image", "ls", "-q")
    context.dockerfile(text)
    done = builder("build", "--network", "none", context.top)
    assert done.returncode == 125, done.stderr
    assert why in done.stderr
    assert builder.output("image", "ls", "-q") == before
    assert not list((builder.root / "snapshots/containers").glob("*"))


def test_where_the_dockerfile_is(builder: Minirt, context: Context, tmp_path: Path) -> None:
    other = tmp_path / "Other"
    other.write_text("FROM scratch\nCOPY . /\n")
    (tmp_path / "Other.dockerignore").write_text("b\n")
    context.write("a", "")
    context.write("b", "")
    build(builder, context, "-f", str(other))
    first = layers(builder)
    done = builder("build", "-q", "-t", NAME, "-f", "-", context.top, stdin="FROM scratch\nCOPY a /\n")
    assert done.returncode == 0, done.stderr
    assert layers(builder) != []
    assert first != []
    for words, why in ((("nowhere",), "it is no directory"), ((context.top,), "cannot read")):
        missing = builder("build", *words)
        assert missing.returncode == 125
        assert why in missing.stderr
