"""The peers that minirt is compared with work on this machine, in the tests' own namespaces.

Without this a comparison that is skipped, or fails, could not be told from a peer that was started wrongly.
"""

import urllib.request
from pathlib import Path

import pytest

from tests.peers import oci
from tests.peers.busybox import NAME
from tests.peers.containerd import Containerd
from tests.peers.daemon import await_true
from tests.peers.docker import Dockerd
from tests.peers.oci import Runtime
from tests.peers.podman import Podman
from tests.peers.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.peer]

POD = """
apiVersion: v1
kind: Pod
metadata: {name: pair}
spec:
  restartPolicy: Never
  containers:
  - {name: web, image: "IMAGE", imagePullPolicy: Never,
     command: [sh, -c, "echo hello >/tmp/index.html; httpd -f -p 8080 -h /tmp"]}
  - {name: client, image: "IMAGE", imagePullPolicy: Never,
     command: [sh, -c, "until wget -qO- http://localhost:8080; do :; done; sleep 1000"]}
""".replace("IMAGE", NAME)


def test_docker_runs_a_container(dockerd: Dockerd) -> None:
    done = dockerd("run", "--rm", "--network", "none", NAME, "sh", "-c", "echo hello; exit 3")
    assert (done.stdout, done.returncode) == ("hello\n", 3), done.stderr


def test_docker_has_a_bridge(dockerd: Dockerd) -> None:
    assert "172.17.0." in dockerd.output("run", "--rm", NAME, "ip", "addr")


def test_podman_runs_a_container(podman: Podman) -> None:
    done = podman("run", "--rm", "--network", "none", NAME, "sh", "-c", "echo hello; exit 3")
    assert (done.stdout, done.returncode) == ("hello\n", 3), done.stderr


def test_podman_plays_a_pod_of_two_containers(podman: Podman, tmp_path: Path) -> None:
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(POD)
    podman.output("kube", "play", "--network", "none", manifest)
    try:
        await_true(lambda: podman.output("logs", "pair-client") == "hello", "the client's answer")
    finally:
        podman.output("kube", "down", manifest)


def test_containerd_runs_a_container(containerd: Containerd) -> None:
    done = containerd("run", "--rm", NAME, "once", "sh", "-c", "echo hello; exit 3")
    assert (done.stdout, done.returncode) == ("hello\n", 3), done.stderr


def test_containerd_has_a_cri_face(containerd: Containerd) -> None:
    plugins = containerd.output("plugins", "list").splitlines()
    cri = next(line.split() for line in plugins if line.startswith("io.containerd.grpc.v1") and " cri " in line)
    assert cri[-1] == "ok"


@pytest.mark.parametrize("name", ["runc", "crun"])
def test_an_oci_runtime_runs_a_bundle(
    name: str, tmp_path: Path, busybox_root: Path, request: pytest.FixtureRequest
) -> None:
    runtime: Runtime = request.getfixturevalue(name)
    bundle = oci.bundle(tmp_path / "bundle", busybox_root, "sh", "-c", "echo hello; exit 3")
    done = runtime("run", "--bundle", bundle, f"peer-{name}")
    assert (done.stdout, done.returncode) == ("hello\n", 3), done.stderr


def test_the_registry_answers(registry: Registry) -> None:
    with urllib.request.urlopen(f"http://{registry.address}/v2/_catalog", timeout=10) as answer:
        assert answer.read().startswith(b'{"repositories":[')
