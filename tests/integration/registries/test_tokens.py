"""Tokens: Debian's docker-registry believes a token server of the test's own."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirt.errors import RegistryError
from minirt.images.credentials import Credentials
from minirt.images.store import ImageStore
from tests.command import Minirt
from tests.integration.registries.conftest import NAME
from tests.peers.daemon import output
from tests.peers.registry import TOKENS, Registry
from tests.peers.tokens import IDENTITY, PASSWORD, USER, TokenServer

pytestmark = [pytest.mark.root, pytest.mark.needs("registry", "openssl")]
GIVEN = Credentials(USER, PASSWORD)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TokenServer, Registry]]:
    top = tmp_path_factory.mktemp("tokens")
    tokens = TokenServer(top / "tokens")
    settings = TOKENS.format(realm=tokens.realm, certificate=tokens.signer.certificate)
    registry = Registry(top / "registry", settings)
    yield tokens, registry
    registry.close()
    tokens.close()


@pytest.fixture
def tokens(servers: tuple[TokenServer, Registry]) -> TokenServer:
    servers[0].asked.clear()
    servers[0].lifetime_s, servers[0].said_lifetime_s = 300, None
    return servers[0]


@pytest.fixture
def registry(servers: tuple[TokenServer, Registry]) -> Registry:
    return servers[1]


def test_a_password_gets_a_token_for_what_is_asked(
    tokens: TokenServer, registry: Registry, made: ImageStore, tmp_path: Path
) -> None:
    name = f"{registry.address}/mine/x:v1"
    made.push(NAME, name, credentials=GIVEN)
    assert {scope for one in tokens.asked for scope in one["scope"]} <= {
        "repository:mine/x:pull",
        "repository:mine/x:pull,push",
        "repository:mine/x:push,pull",
    }
    tokens.asked.clear()
    fresh = ImageStore(tmp_path / "fresh")
    assert fresh.pull(name, credentials=GIVEN).id == made.get(NAME).id
    assert tokens.asked == [{"service": ["test registry"], "scope": ["repository:mine/x:pull"]}]
    with pytest.raises(RegistryError, match=r"its token server 127.0.0.1:\d+ says 401"):
        fresh.pull(name, credentials=Credentials(USER, "wrong"))
    with pytest.raises(RegistryError, match=r"\(401\).*see minirt login"):
        fresh.pull(name)


def test_anybody_may_pull_what_is_open(tokens: TokenServer, registry: Registry, made: ImageStore) -> None:
    name = f"{registry.address}/open/x:v1"
    made.push(NAME, name, credentials=GIVEN)
    assert made.pull(name).names
    with pytest.raises(RegistryError, match=r"\(401\)"):
        made.push(NAME, name)


def test_a_token_of_the_other_repository_comes_with_a_mount(
    tokens: TokenServer, registry: Registry, made: ImageStore
) -> None:
    first = f"{registry.address}/mine/first:v1"
    made.push(NAME, first, credentials=GIVEN)
    made.pull(first, credentials=GIVEN)
    tokens.asked.clear()
    made.push(first, f"{registry.address}/mine/second:v1", credentials=GIVEN)
    assert any(len(one["scope"]) == 2 for one in tokens.asked)


def test_an_identity_token(tokens: TokenServer, registry: Registry, made: ImageStore, home: Path) -> None:
    name = f"{registry.address}/mine/identity:v1"
    (home / ".docker").mkdir()
    auths = {registry.address: {"auth": base64.b64encode(b"0000:").decode(), "identitytoken": IDENTITY}}
    (home / ".docker/config.json").write_text(json.dumps({"auths": auths}))
    made.push(NAME, name)
    assert {one["grant_type"][0] for one in tokens.asked} == {"refresh_token"}


def test_a_registry_token_is_used_as_it_is(tokens: TokenServer, registry: Registry, made: ImageStore) -> None:
    name = f"{registry.address}/open/token:v1"
    made.push(NAME, name, credentials=GIVEN)
    tokens.asked.clear()
    with pytest.raises(RegistryError, match=r"\(401\)"):
        made.pull(name, credentials=Credentials("", "", registry_token="made.up.token"))
    assert tokens.asked == []


def test_a_token_that_expires_meanwhile_is_renewed(
    tokens: TokenServer, registry: Registry, made: ImageStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both ways: before it expires, as the server says how long it lives; and by the registry's 401."""
    from minirt.images import auth

    name = f"{registry.address}/mine/expiring:v1"
    monkeypatch.setattr(auth, "MARGIN_S", auth.SHORTEST_S)
    made.push(NAME, name, credentials=GIVEN)
    before = len(tokens.asked)
    assert before > 8, "each request needs a token of its own"
    monkeypatch.setattr(auth, "MARGIN_S", 10)
    tokens.lifetime_s, tokens.said_lifetime_s = -100, 300
    with pytest.raises(RegistryError, match=r"\(401\)"):
        ImageStore(tmp_path / "fresh").pull(name, credentials=GIVEN)
    assert len(tokens.asked) == before + 1, "a token that is refused is not asked for for ever"


@pytest.mark.needs("skopeo")
def test_login_with_a_token_server(
    tokens: TokenServer, registry: Registry, made: ImageStore, minirt: Minirt, tmp_path: Path
) -> None:
    wrong = minirt("login", "-u", USER, "--password-stdin", registry.address, stdin="wrong")
    assert wrong.returncode == 125
    assert "its token server" in wrong.stderr
    minirt.output("login", "-u", USER, "--password-stdin", registry.address, stdin=PASSWORD)
    name = f"{registry.address}/mine/logged-in:v1"
    minirt.output("image", "push", NAME, name)
    output("skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path}/out:x")
