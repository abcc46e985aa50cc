import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirt.errors import InvalidInput
from minirt.images.reference import Reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
        ("team/app", "docker.io/team/app:latest"),
        ("localhost/busybox", "localhost/busybox:latest"),
        ("localhost:5000/busybox", "localhost:5000/busybox:latest"),
        ("host:5000/x", "host:5000/x:latest"),
        ("Host/x", "Host/x:latest"),
        ("[::1]:5000/x:y", "[::1]:5000/x:y"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ("ghcr.io/a/b/c", "ghcr.io/a/b/c:latest"),
        ("a__b/c-d--e", "docker.io/a__b/c-d--e:latest"),
        ("x:5000", "docker.io/library/x:5000"),
        ("localhost:5000", "docker.io/library/localhost:5000"),
        ("docker.io", "docker.io/library/docker.io:latest"),
        ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
        ("[2001:db8::1]/a/b:c", "[2001:db8::1]/a/b:c"),
        (f"localhost:5000/x:1@{DIGEST}", f"localhost:5000/x:1@{DIGEST}"),
        ("ab" * 32 + ":x", f"docker.io/library/{'ab' * 32}:x"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        (f"busybox:1@{DIGEST}", f"docker.io/library/busybox:1@{DIGEST}"),
    ],
)
def test_reads_a_name_as_docker_does(text: str, full: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == full
    assert Reference.parse(full) == reference


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("Busybox", "character 1, 'B'"),
        ("bu sy", "character 3, ' '"),
        ("a//b", "character 2, '/'"),
        ("a/", "character 2, '/'"),
        ("-a", "character 1, '-'"),
        ("a..b", "character 2, '.'"),
        ("a:", "it ends too soon, after character 2"),
        ("x:@sha256:12", "it ends too soon, after character 12"),
        (f"x:@{DIGEST}", "it ends too soon, before character 3, '@'"),
        ("[::1/x", "character 1, '['"),
        ("[fe80::1%eth0]:5/x", "character 1, '['"),
        ("a_", "character 2, '_'"),
        ("busybox:", "it ends too soon, after character 8"),
        ("busybox:a b", "character 10, ' '"),
        ("busybox:-a", "character 9, '-'"),
        ("busybox:" + "t" * 129, "character 137, 't'"),
        ("busybox@sha256:12", "it ends too soon, after character 17"),
        ("busybox@sha512:12", "character 12, '5'"),
        (f"busybox@{DIGEST}0", "character 80, '0'"),
        ("host:port/x", "character 5, ':'"),
        ("http://host/x", "character 5, ':'"),
        ("ab" * 32, "64 hexadecimal digits"),
        ("busybox\n", "character 8, '\\n'"),
    ],
)
def test_points_at_what_cannot_be(text: str, why: str) -> None:
    with pytest.raises(InvalidInput, match="cannot read the image name") as caught:
        Reference.parse(text)
    assert why in str(caught.value)


@pytest.mark.parametrize(("text", "at"), [("Busybox", 0), ("bu sy", 2), ("é/x", 0), ("x" * 99 + "Y", 60), ("x:", 2)])
def test_a_caret_is_under_the_character(text: str, at: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        Reference.parse(text)
    name, caret = caught.value.shown.splitlines()
    assert caret == "    " + " " * at + "^"
    assert name.isascii()


def test_a_name_may_not_be_too_long() -> None:
    with pytest.raises(InvalidInput, match="longer than 255"):
        Reference.parse("a/" * 130 + "b")


NAMES = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}", fullmatch=True)
HOSTS = st.sampled_from(
    ["localhost", "localhost:5000", "Host", "r.example.com", "10.0.0.1:5", "[::1]", "[fe80::2]:443"]
)
TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True)


@given(HOSTS, st.lists(NAMES, min_size=1, max_size=4), st.none() | TAGS, st.none() | st.just(DIGEST))
def test_what_is_put_together_is_taken_apart(host: str, parts: list[str], tag: str | None, digest: str | None) -> None:
    text = f"{host}/{'/'.join(parts)}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    found = Reference.parse(text)
    assert (found.registry, found.repository, found.digest) == (host, "/".join(parts), digest)
    assert found.tag == (tag or (None if digest else "latest"))
    assert str(found) == (text if tag or digest else f"{text}:latest")


def test_target_prefers_the_digest() -> None:
    assert Reference.parse(f"x:1@{DIGEST}").target == DIGEST
    assert Reference.parse("x:1").target == "1"
    assert Reference.parse(f"x@{DIGEST}").tagged is None


@given(st.text(max_size=60))
def test_whatever_is_read_reads_back_the_same(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidInput:
        return
    assert Reference.parse(str(reference)) == reference
