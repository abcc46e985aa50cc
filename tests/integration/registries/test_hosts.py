"""Private CAs, client certificates, mirrors and other settings, in the files of containerd and docker."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from minirt.errors import InvalidInput, RegistryError
from minirt.images.credentials import Credentials
from minirt.images.store import ImageStore
from tests.integration.registries.conftest import NAME
from tests.peers.certificates import Authority, Certificate
from tests.peers.daemon import output
from tests.peers.faults import Asked, Fault, Proxy
from tests.peers.registry import CLIENTS, TLS, Registry
from tests.peers.tunnel import Tunnel

pytestmark = [pytest.mark.root, pytest.mark.needs("registry", "openssl", "perl")]


class Secure(NamedTuple):
    """A registry with TLS, and who signed its certificate."""

    registry: Registry
    authority: Authority
    client: Certificate

    @property
    def address(self) -> str:
        return self.registry.address


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """A registry that wants a client certificate."""
    top = tmp_path_factory.mktemp("secure")
    authority = Authority(top / "ca")
    server = authority.sign("server")
    settings = TLS.format(certificate=server.certificate, key=server.key) + CLIENTS.format(ca=authority.certificate)
    registry = Registry(top / "own", settings)
    yield Secure(registry, authority, authority.sign("client", "clientAuth"))
    registry.close()


def settings(home: Path, host: str, text: str) -> Path:
    directory = home / "certs.d" / host
    directory.mkdir(parents=True)
    (directory / "hosts.toml").write_text(text)
    return directory


@pytest.mark.needs("skopeo")
def test_docker_s_directory_of_certificates(secure: Secure, made: ImageStore, home: Path) -> None:
    directory = home / "certs.d" / secure.address
    directory.mkdir()
    name = f"{secure.address}/tls:v1"
    with pytest.raises(RegistryError, match=r"TLS failed: .*unable to get local issuer"):
        made.push(NAME, name)
    (directory / "ca.crt").write_bytes(secure.authority.certificate.read_bytes())
    with pytest.raises(RegistryError, match=r"certificate required|Broken pipe|ended|alert|reset"):
        made.push(NAME, name)
    (directory / "me.cert").write_bytes(secure.client.certificate.read_bytes())
    with pytest.raises(InvalidInput, match=r"there is no me.key"):
        made.push(NAME, name)
    (directory / "me.key").write_bytes(secure.client.key.read_bytes())
    made.push(NAME, name)
    assert made.pull(name).names
    output("skopeo", "inspect", "--cert-dir", directory, f"docker://{name}")


def test_a_tunnel_through_the_environments_proxy(
    secure: Secure, made: ImageStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry's certificate is for its address, not for the name that it has here."""
    client = f'client = [["{secure.client.certificate}", "{secure.client.key}"]]'
    settings(home, "registry.example", f'server = "https://registry.example"\nskip_verify = true\n{client}\n')
    with Tunnel(secure.address) as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:word@{tunnel.host}")
        made.push(NAME, "registry.example/tunnel:v1")
        assert made.pull("registry.example/tunnel:v1").names
        assert set(tunnel.asked) == {("registry.example:443", "Basic dXNlcjp3b3Jk")}


def test_hosts_toml_with_certificates(secure: Secure, made: ImageStore, home: Path) -> None:
    """Under another name for it, which the file leads to where it is; the certificate is for the address."""
    client = f'client = [["{secure.client.certificate}", "{secure.client.key}"]]'
    directory = settings(home, "registry.example", f'server = "https://{secure.address}"\nca = "here.crt"\n{client}\n')
    with pytest.raises(InvalidInput, match=r"there is no file .*here.crt"):
        made.push(NAME, "registry.example/x:v1")
    (directory / "here.crt").write_bytes(secure.authority.certificate.read_bytes())
    made.push(NAME, "registry.example/x:v1")
    assert "registry.example/x:v1" in made.pull("registry.example/x:v1").names
    joined = secure.client.certificate.read_text() + secure.client.key.read_text()
    (directory / "both.pem").write_text(joined)
    (directory / "hosts.toml").write_text(
        f'server = "https://{secure.address}"\nskip_verify = true\nclient = "both.pem"\n'
    )
    assert made.pull("registry.example/x:v1").names


def test_a_mirror_is_asked_first_and_the_server_for_what_it_lacks(
    registry: Registry, made: ImageStore, home: Path, tmp_path: Path
) -> None:
    made.push(NAME, f"{registry.address}/team/app:v1")
    no_blobs = Proxy(registry.address, lambda asked: Fault(404) if "/blobs/" in asked.path else None)
    with no_blobs as mirror, Proxy(registry.address) as server:
        text = f"""
            server = "http://{server.host}"
            [host."http://{mirror.host}"]
              [host."http://{mirror.host}".header]
                x-team = ["blue", "green"]
            [host."http://10.255.255.1"]
              dial_timeout = "200ms"
        """
        settings(home, "registry.example", text)
        assert ImageStore(tmp_path / "fresh").pull("registry.example/team/app:v1").names
        assert mirror.count("GET", "/v2/team/app/manifests/v1?ns=registry.example") == 1
        assert server.count("GET", "manifests") == 0
        assert mirror.count("GET", "/blobs/") == server.count("GET", "/blobs/") == 4
        assert {asked.headers["X-Team"] for asked in mirror.asked} == {"blue, green"}
        assert not any("X-Team" in asked.headers for asked in server.asked)


def test_a_mirror_that_is_down_or_breaks_off(registry: Registry, made: ImageStore, home: Path, tmp_path: Path) -> None:
    """What came from it is kept: the next host is asked for the rest."""
    made.push(NAME, f"{registry.address}/team/app:v1")

    def breaks_off(asked: Asked) -> Fault | None:
        if "Range" in asked.headers:
            return Fault(deaf=True)
        return Fault(cut=1_000_000) if "/blobs/" in asked.path else None

    with Proxy(registry.address, breaks_off) as mirror, Proxy(registry.address) as server:
        text = f'server = "http://{server.host}"\n[host."http://127.0.0.1:1"]\n[host."http://{mirror.host}"]\n'
        settings(home, "registry.example", text)
        assert ImageStore(tmp_path / "fresh").pull("registry.example/team/app:v1").names
        assert [asked.headers["Range"] for asked in server.asked if "Range" in asked.headers] == ["bytes=1000000-"]


def test_capabilities_and_paths(registry: Registry, made: ImageStore, home: Path, tmp_path: Path) -> None:
    made.push(NAME, f"{registry.address}/cache/team/app:v1")
    with Proxy(registry.address) as mirror, Proxy(registry.address) as server:
        text = f"""
            server = "http://{server.host}/v2/cache"
            override_path = true
            capabilities = ["pull", "resolve"]
            [host."http://{mirror.host}/v2/cache"]
            override_path = true
            capabilities = ["pull"]
        """
        settings(home, "registry.example", text)
        fresh = ImageStore(tmp_path / "fresh")
        assert fresh.pull("registry.example/team/app:v1").names
        assert (server.count("GET", "/manifests/"), server.count("GET", "/blobs/")) == (1, 0)
        assert (mirror.count("GET", "/manifests/"), mirror.count("GET", "/blobs/")) == (0, 4)
        with pytest.raises(InvalidInput, match="has not the capability 'push'"):
            fresh.push("registry.example/team/app:v1", "registry.example/other:v1")


def test_a_mirror_gets_its_own_credentials_and_not_ours(
    registry: Registry, made: ImageStore, home: Path, tmp_path: Path
) -> None:
    made.push(NAME, f"{registry.address}/team/app:v1")

    def locked(asked: Asked) -> Fault | None:
        wanted = {"Www-Authenticate": 'Basic realm="x"'}
        return None if "Authorization" in asked.headers else Fault(401, wanted)

    with Proxy(registry.address, locked) as mirror, Proxy(registry.address, locked) as server:
        settings(home, "registry.example", f'server = "http://{server.host}"\n[host."http://{mirror.host}"]\n')
        fresh = ImageStore(tmp_path / "fresh")
        assert fresh.pull("registry.example/team/app:v1", credentials=Credentials("me", "secret")).names
        assert not any("Authorization" in asked.headers for asked in mirror.asked)
        (home / ".docker").mkdir()
        auth = f'{{"auths": {{"{mirror.host}": {{"username": "m", "password": "n"}}}}}}'
        (home / ".docker/config.json").write_text(auth)
        assert ImageStore(tmp_path / "again").pull("registry.example/team/app:v1").names
        assert mirror.asked[-1].headers["Authorization"] == "Basic bTpu"


def test_settings_for_all(registry: Registry, made: ImageStore, home: Path, tmp_path: Path) -> None:
    made.push(NAME, f"{registry.address}/team/app:v1")
    with Proxy(registry.address) as mirror:
        settings(home, "_default", f'[host."http://{mirror.host}"]\n')
        assert ImageStore(tmp_path / "fresh").pull("nowhere.invalid/team/app:v1").names
        assert all("ns=nowhere.invalid" in asked.path for asked in mirror.asked)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("server = ", "Invalid value"),
        ("[host.x", "Expected"),
        ("sever = 'https://x'", "unknown field `sever`"),
        ("[host.'https://x']\nverify = true", "unknown field `verify`"),
        ("[host.'https://x']\ncapabilities = ['fetch']", "the capability 'fetch'"),
        ("[host.'ftp://x']", "'ftp://x' is no address of a registry"),
        ("[host.'https://u:p@x']", "is no address of a registry"),
        ("client = [['a', 'b', 'c']]", "is no pair"),
        ("[host.'https://x']\ndial_timeout = 'soon'", "dial_timeout 'soon' is no duration"),
        ("ca = 7", "Expected `str | array`"),
    ],
)
def test_settings_that_make_no_sense(made: ImageStore, home: Path, text: str, why: str) -> None:
    directory = settings(home, "registry.example", text)
    with pytest.raises(InvalidInput, match=f"read {directory}/hosts.toml") as caught:
        made.pull("registry.example/x")
    assert why in str(caught.value)


def test_a_certificate_that_is_none(made: ImageStore, home: Path) -> None:
    directory = settings(home, "registry.example", 'ca = "ca.crt"')
    (directory / "ca.crt").write_text("none")
    with pytest.raises(InvalidInput, match=r"use the certificate .*ca.crt"):
        made.pull("registry.example/x")
