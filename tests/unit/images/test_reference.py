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


def test_a_name_may_not_be_too_long() -> None:
    with pytest.raises(InvalidInput, match="longer than 255"):
        Reference.parse("a/" * 130 + "b")


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
