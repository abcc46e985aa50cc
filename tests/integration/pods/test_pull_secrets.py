"""imagePullSecrets: a pod's image comes from a registry that lets only some in."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.pods.manifests import Pods, container, manifest
from tests.peers.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "registry", "perl", "cgroup2_tree")]
USER, PASSWORD = "someone", "secret"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    daemon = Registry(tmp_path_factory.mktemp("locked") / "own", users={USER: PASSWORD})
    yield daemon
    daemon.close()


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the node's secrets are; there are no credentials elsewhere."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MINIRT_SECRETS", str(tmp_path / "secrets"))
    (tmp_path / "secrets/default").mkdir(parents=True)
    return tmp_path / "secrets/default"


@pytest.fixture
def image(pods: Pods, locked: Registry, secrets: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of busybox in that registry; it is not here."""
    name = f"{locked.address}/team/busybox:1"
    with monkeypatch.context() as logged_in:
        logged_in.setenv("DOCKER_CONFIG", str(secrets.parent / "docker"))
        pods.minirt.output("login", "-u", USER, "--password-stdin", locked.address, stdin=PASSWORD)
        pods.minirt.output("image", "push", "localhost/busybox", name)
    return name


def document(registry: str, password: str = PASSWORD) -> str:
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    return json.dumps({"auths": {registry: {"auth": auth}}})


def secret(kind: str = "kubernetes.io/dockerconfigjson", **fields: Any) -> str:
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "type": kind, **fields})


def pod(image: str, *names: str) -> dict[str, Any]:
    made = container("main", "echo it runs", image=image, imagePullPolicy="Always")
    return manifest(made, imagePullSecrets=[{"name": name} for name in names])


@pytest.mark.parametrize("form", ["data", "stringData", "older"])
def test_a_secret_lets_us_in(pods: Pods, image: str, locked: Registry, secrets: Path, form: str) -> None:
    whole = document(locked.address)
    if form == "data":
        text = secret(data={".dockerconfigjson": base64.b64encode(whole.encode()).decode()})
    elif form == "stringData":
        text = secret(stringData={".dockerconfigjson": whole})
    else:
        auths = json.dumps(json.loads(whole)["auths"])
        text = secret("kubernetes.io/dockercfg", data={".dockercfg": base64.b64encode(auths.encode()).decode()})
    (secrets / "mine.yaml").write_text(text)
    (secrets / "other.yaml").write_text(secret(stringData={".dockerconfigjson": document("elsewhere.example", "x")}))
    done = pods.run(pod(image, "other", "mine"))
    assert done.returncode == 0, done.stderr
    assert "it runs" in done.stdout


def test_without_one(pods: Pods, image: str, secrets: Path) -> None:
    done = pods.run(pod(image))
    assert done.returncode == 125
    assert "the registry wants a user name and a password" in done.stderr


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "mine.yaml: No such file or directory (put the Secret there)"),
        ("a: [", "write it as kubectl get secret -o yaml does"),
        (secret("Opaque", data={"x": "eA=="}), "its type is Opaque"),
        (secret(data={"x": "eA=="}), "it has no .dockerconfigjson"),
        (secret(data={".dockerconfigjson": "%"}), "mine.yaml: "),
        (secret(stringData={".dockerconfigjson": "{"}), "read the credentials in"),
    ],
    ids=range(6),
)
def test_one_that_is_of_no_use_is_told_of(pods: Pods, image: str, secrets: Path, text: str, why: str) -> None:
    if text:
        (secrets / "mine.yaml").write_text(text)
    done = pods.run(pod(image, "mine"))
    assert done.returncode == 125
    assert why in done.stderr
    assert "the registry wants a user name and a password" in done.stderr
