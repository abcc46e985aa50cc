"""A pod's volumes that are images: whole or in part, read-only, by their pull policies."""

from pathlib import Path
from typing import Any

import pytest

from tests.integration.images.making import Layout, entry, layer
from tests.integration.pods.manifests import Pods, container, manifest

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]
FIRST, SECOND = layer(entry("conf/one", b"1\n"), entry("top", b"t\n")), layer(entry("conf/two", b"2\n"))


@pytest.fixture
def image(pods: Pods, tmp_path: Path) -> str:
    layout = Layout(tmp_path / "layout")
    pods.minirt.output("image", "load", "-q", layout.tag(layout.image([FIRST, SECOND]), "x").top)
    return "localhost/layout:x"


def volume(reference: str, **more: str) -> dict[str, Any]:
    return {"volumes": [{"name": "files", "image": {"reference": reference} | more}]}


def mounted(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"volumeMounts": [{"name": "files", "mountPath": place, "subPath": path} for place, path in pairs]}


@pytest.mark.parametrize("more", [{}, {"hostUsers": False}])
def test_the_whole_and_a_part(pods: Pods, image: str, more: dict[str, Any]) -> None:
    script = "ls /all /conf; cat /etc/one; touch /conf/x 2> /dev/null || echo read-only"
    fields = mounted(("/all", ""), ("/conf", "conf"), ("/etc/one", "conf/one"))
    lines = pods.said(manifest(container("main", script, **fields), **volume(image), **more))["main"]
    assert lines == ["/all:", "conf", "top", "", "/conf:", "one", "two", "1", "read-only"]


def test_a_part_that_is_not_there(pods: Pods, image: str) -> None:
    done = pods.run(manifest(container("main", "true", **mounted(("/x", "none"))), **volume(image)))
    assert (done.returncode, "mount none of the image" in done.stderr) == (125, True)


def test_an_image_that_may_not_be_pulled(pods: Pods) -> None:
    pod = manifest(container("main", "true", **mounted(("/x", ""))), **volume("localhost/none:1", pullPolicy="Never"))
    done = pods.run(pod)
    assert (done.returncode, "imagePullPolicy is Never" in done.stderr) == (125, True)
