"""Manifests, configs, platforms, tokens: the documents of registries."""

import json

import pytest

from minirt.errors import ImageError, InvalidInput, RegistryError
from minirt.images import auth, manifest
from minirt.images.credentials import Credentials
from minirt.images.hosts import is_loopback
from minirt.images.image import ImageConfig, Platform, chain_ids
from minirt.images.manifest import Descriptor, Index, PlatformField

SOME = "sha256:" + "a" * 64


def test_a_config_of_docker_with_nulls() -> None:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Cmd": None,
            "Env": None,
            "ExposedPorts": {"80/tcp": {}},
            "Labels": None,
            "Healthcheck": {"Test": []},
        },
        "rootfs": {"type": "layers", "diff_ids": [SOME]},
        "container_config": {"Tty": False},
    }
    read = manifest.read_config(json.dumps(config).encode(), "x")
    assert read.run_config() == ImageConfig(exposed_ports=("80/tcp",))
    assert read.platform == Platform("linux", "amd64")
    del config["config"]
    assert manifest.read_config(json.dumps(config).encode(), "x").run_config() == ImageConfig()


def test_a_config_without_layers_is_refused() -> None:
    with pytest.raises(ImageError, match="rootfs"):
        manifest.read_config(b"{}", "x")


def entry(os: str, architecture: str, variant: str = "") -> Descriptor:
    digest = f"sha256:{os}-{architecture}-{variant}"
    return Descriptor("application/json", digest, 1, PlatformField(os, architecture, variant))


@pytest.mark.parametrize(
    ("wanted", "digest"),
    [
        ("linux/amd64", "sha256:linux-amd64-"),
        ("linux/arm64", "sha256:linux-arm64-v8"),
        ("linux/arm64/v8", "sha256:linux-arm64-v8"),
        ("linux/arm/v7", "sha256:linux-arm-v7"),
        ("linux/arm", "sha256:linux-arm-v6"),
        ("windows/amd64", "sha256:windows-amd64-"),
        ("linux/386", "sha256:linux-386-"),
    ],
)
def test_choosing_a_platform(wanted: str, digest: str) -> None:
    index = Index(
        [
            Descriptor("application/json", "sha256:none", 1),
            entry("unknown", "unknown"),
            entry("windows", "amd64"),
            entry("linux", "arm", "v6"),
            entry("linux", "arm", "v7"),
            entry("linux", "arm64", "v8"),
            entry("linux", "amd64"),
            entry("linux", "386"),
        ]
    )
    assert manifest.choose(index, Platform.parse(wanted), "x").digest == digest


def test_no_platform_says_which_there_are() -> None:
    index = Index([entry("linux", "s390x"), entry("unknown", "unknown")])
    with pytest.raises(ImageError, match=r"not there for linux/amd64 \(it is for linux/s390x\)"):
        manifest.choose(index, Platform.parse("linux/amd64"), "x")


@pytest.mark.parametrize("text", ["", "linux", "linux/", "linux/amd64/v1/x", "Linux/AMD64", "linux amd64", "/amd64"])
def test_no_platform(text: str) -> None:
    with pytest.raises(InvalidInput, match="a platform is os/architecture"):
        Platform.parse(text)


def test_this_machine_has_a_platform() -> None:
    assert Platform.host().os == "linux"
    assert Platform.parse(str(Platform.host())) == Platform.host()


def test_chain_ids_are_those_of_the_specification() -> None:
    """The value was computed with ``printf 'sha256:111… sha256:222…' | sha256sum``."""
    first, second = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    chain = chain_ids([first, second, first])
    assert chain[0] == first
    assert chain[1] == "sha256:9932074217c35353d2e03a3f5a86549f7c67bfeb0ba53e23d69f4d4c8f7958f5"
    assert len(set(chain)) == 3


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("127.9.8.7:80", True),
        ("[::1]:5000", True),
        ("docker.io", False),
        ("localhost.example.com", False),
        ("10.0.0.1:5000", False),
        ("[fe80::1]:5000", False),
        ("2130706433:80", False),
    ],
)
def test_loopback(host: str, is_local: bool) -> None:
    assert is_loopback(host) is is_local


def no_fetch(url: str, headers: dict[str, str], body: bytes | None) -> bytes:
    raise AssertionError(url)


def test_basic() -> None:
    found = auth.answer(auth.read(['Basic realm="x"']), Credentials("a", "b"), no_fetch, secure=True)
    assert found.headers == {"Authorization": "Basic YTpi"}
    assert found.is_valid()


def test_bearer_with_a_comma_in_quotes() -> None:
    asked = []

    def fetch(url: str, headers: dict[str, str], body: bytes | None) -> bytes:
        asked.append((url, headers, body))
        return b'{"token":"t","access_token":"other","expires_in":300}'

    challenge = 'Bearer realm="https://auth.example/token",service="a,b",scope="repository:x:pull,push",error="x"'
    found = auth.answer(auth.read(["Basic realm=x", challenge]), Credentials("a", "b"), fetch, secure=True)
    assert found.headers == {"Authorization": "Bearer t"}
    url = "https://auth.example/token?service=a%2Cb&scope=repository%3Ax%3Apull%2Cpush"
    assert asked == [(url, {"Authorization": "Basic YTpi"}, None)]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b'"x"'])
def test_no_token(body: bytes) -> None:
    with pytest.raises(RegistryError, match="holds no token"):
        auth.answer(auth.read(['Bearer realm="https://x/"']), None, lambda *_: body, secure=True)


@pytest.mark.parametrize("realm", ["http://auth.example/token", "", "file:///etc/passwd"])
def test_a_secure_registry_may_not_send_the_password_into_the_clear(realm: str) -> None:
    with pytest.raises(RegistryError, match="it must be an https address"):
        auth.answer(auth.read([f'Bearer realm="{realm}"']), Credentials("a", "b"), no_fetch, secure=True)
