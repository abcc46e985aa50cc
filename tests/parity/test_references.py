"""Which names docker takes and which it does not: minirt takes the same ones.

Debian's docker and skopeo have an older grammar than distribution/reference 0.6, which containerd has: no
IPv6, no capitals in a host without a dot, 255 characters for host and repository together.
"""

import pytest

from minirt.errors import InvalidInput
from minirt.images.reference import Reference
from tests.peers.daemon import run
from tests.peers.docker import Dockerd

pytestmark = [pytest.mark.root, pytest.mark.peer]

DIGEST = "sha256:" + "ab" * 32
OLDER = {"A/b", "Host/x", "[::1]/x", "[::1]:5/x:y", "h.io/" + "y" * 255}
TAG_AND_DIGEST = {f"a:b@{DIGEST}", f"r.io/a:b@{DIGEST}"}
NAMES = [
    "busybox", "a/b", "a/b/c:d", "localhost/x", "localhost:5000", "localhost:5000/x:1", "docker.io", "docker.io/x",
    "Host/x", "host:5/x", "host:99999/x", "127.0.0.1:5/x", "[::1]/x", "[::1]:5/x:y", "x:5000", "a__b", "a--b", "a.b",
    "a_b-c.d", "x:_", "x:-", "x:.", "x:" + "t" * 128, "x:" + "t" * 129, "x:ü", "x:a b", "x:a:b", "x:", ":x", "", "/x",
    "x/", "a//b", "-a", "a-", "a..b", "a._b", "a___b", "_/x", "A/b", "Busybox", "a/B", "host:/x", "host:port/x",
    "http://x/y", "a.b.-c/x", "a-.b/x", "host.:5/x", "[::1/x", "[::1]x/y", "[fe80::1%eth0]/x", "ab" * 32,
    "ab" * 32 + ":x", "h.io/" + "ab" * 32, "h.io/" + "y" * 255, "h.io/" + "y" * 256,
    f"x@{DIGEST}", f"a:b@{DIGEST}", f"r.io/a:b@{DIGEST}", f"x@{DIGEST}0", f"x@{DIGEST[:-1]}", f"x@{DIGEST.upper()}",
    "x@sha256:", "x@", "x@md5:" + "a" * 32, "@", f"@{DIGEST}",
]  # fmt: skip


def taken(text: str) -> bool:
    try:
        Reference.parse(text)
    except InvalidInput:
        return False
    return True


@pytest.mark.needs("docker", "busybox")
def test_docker(dockerd: Dockerd) -> None:
    differing = set()
    for name in NAMES:
        done = dockerd("tag", "localhost/busybox", name)
        if taken(name) != (done.returncode == 0 or "refusing to create a tag with a digest" in done.stderr):
            differing.add(name)
    assert differing == OLDER


@pytest.mark.needs("skopeo")
def test_skopeo() -> None:
    """It reads the target's name before it looks for the source, which is not there."""
    differing = set()
    for name in NAMES:
        done = run("skopeo", "copy", "dir:/nonexistent", f"docker://{name}")
        if taken(name) != ("/nonexistent/manifest.json" in done.stderr):
            differing.add(name)
    assert differing == OLDER | TAG_AND_DIGEST
