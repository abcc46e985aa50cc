"""Passwords and where they are kept: files of docker and podman, credential helpers, and what a registry says."""

import base64
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirt.errors import RegistryError
from minirt.images.credentials import Credentials
from minirt.images.store import ImageStore
from tests.command import COMMAND, Minirt
from tests.integration.lifecycle.terminal import Terminal
from tests.integration.registries.conftest import NAME
from tests.peers.daemon import output, run
from tests.peers.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.needs("registry", "perl")]
USER, PASSWORD = "someone", "pässword: with a colon"
HELPER = """#!/bin/sh
cd "$(dirname "$0")"
case $1 in
get) read -r server; cat "kept" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; };;
store) cat > kept;;
erase) rm -f kept;;
esac
"""


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that lets one user in."""
    daemon = Registry(tmp_path_factory.mktemp("locked") / "own", users={USER: PASSWORD})
    yield daemon
    daemon.close()


def login(minirt: Minirt, registry: Registry, password: str = PASSWORD) -> None:
    minirt.output("login", "-u", USER, "--password-stdin", registry.address, stdin=f"{password}\n")


def test_login_pull_push_logout(locked: Registry, made: ImageStore, minirt: Minirt, home: Path, tmp_path: Path) -> None:
    name = f"{locked.address}/x:v1"
    before = minirt("image", "push", NAME, name)
    assert before.returncode == 125
    assert "the registry wants a user name and a password (see minirt login)" in before.stderr
    done = minirt("login", "-u", USER, "--password-stdin", locked.address, stdin=PASSWORD)
    assert (done.returncode, done.stdout) == (0, "")
    path = home / ".docker/config.json"
    assert done.stderr == f"Login Succeeded: kept in {path}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    packed = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert json.loads(path.read_text()) == {"auths": {locked.address: {"auth": packed}}}
    minirt.output("image", "push", NAME, name)
    assert Minirt(tmp_path / "other", tmp_path / "state").output("image", "pull", name) == name
    assert minirt("logout", locked.address).stderr == f"Removed the credentials for {locked.address}\n"
    assert json.loads(path.read_text()) == {"auths": {}}
    assert minirt("logout", locked.address).stderr == f"Not logged in to {locked.address}\n"
    assert minirt("image", "pull", name).returncode == 125


def test_a_wrong_password_is_not_kept(locked: Registry, minirt: Minirt, home: Path) -> None:
    done = minirt("login", "-u", USER, "--password-stdin", locked.address, stdin="wrong")
    assert done.returncode == 125
    assert "says authentication required (401) (check the user name and the password)" in done.stderr
    assert not (home / ".docker").exists()


def test_a_terminal_is_asked(locked: Registry, minirt: Minirt, home: Path) -> None:
    with Terminal([COMMAND, "login", locked.address], minirt.env) as terminal:
        terminal.await_text("Username: ")
        terminal.type(f"{USER}\n")
        terminal.await_text("Password: ")
        terminal.type(f"{PASSWORD}\n")
        terminal.await_text("Login Succeeded")
        assert PASSWORD not in terminal.text
    assert (home / ".docker/config.json").exists()


def test_login_refusals(minirt: Minirt, locked: Registry) -> None:
    for words, stdin, why in (
        (("-u", USER, locked.address), None, "there is no terminal to ask for the password"),
        (("--password-stdin", locked.address), "x", "give --username"),
        (("-u", USER, "--password-stdin", locked.address), "", "there is no password on stdin"),
        (("-u", USER, "-p", "x", "http://host"), None, "character 5, ':'"),
        (("-u", USER, "-p", "x", "../etc"), None, "character 1, '.'"),
        (("-u", USER, "-p", "x", "127.0.0.1:1"), None, "Connection refused"),
    ):
        done = minirt("login", *words, stdin=stdin)
        assert done.returncode == 125, words
        assert why in done.stderr, done.stderr


def test_what_else_is_in_the_file_stays(locked: Registry, minirt: Minirt, home: Path) -> None:
    """Also where it is a symlink, as some keep it."""
    kept = home / "kept.json"
    (home / ".docker").mkdir()
    (home / ".docker/config.json").symlink_to(kept)
    kept.write_text('{"auths": {"other": {"auth": "YTpi"}}, "psFormat": "table", "HttpHeaders": {"a": "b"}}')
    login(minirt, locked)
    found = json.loads(kept.read_text())
    assert found["psFormat"] == "table"
    assert found["auths"].keys() == {"other", locked.address}
    kept.write_text("{not json")
    done = minirt("login", "-u", USER, "-p", PASSWORD, locked.address)
    assert done.returncode == 125
    assert "cannot read the credentials in" in done.stderr
    assert kept.read_text() == "{not json"


@pytest.mark.needs("skopeo")
def test_skopeo_reads_what_we_write_and_we_what_it_writes(
    locked: Registry, made: ImageStore, minirt: Minirt, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login(minirt, locked)
    name = f"{locked.address}/skopeo:v1"
    minirt.output("image", "push", NAME, name)
    output("skopeo", "inspect", "--tls-verify=false", f"docker://{name}")
    minirt.output("logout", locked.address)
    assert run("skopeo", "inspect", "--tls-verify=false", f"docker://{name}").returncode
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / "auth.json"))
    output("skopeo", "login", "--tls-verify=false", "-u", USER, "-p", PASSWORD, locked.address)
    minirt.output("image", "pull", name)
    monkeypatch.delenv("REGISTRY_AUTH_FILE")
    assert minirt("image", "pull", name).returncode == 125
    (home / "run/containers").mkdir(parents=True)
    (home / "auth.json").rename(home / "run/containers/auth.json")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    minirt.output("image", "pull", name)


@pytest.mark.needs("docker")
def test_docker_reads_what_we_write(
    locked: Registry, minirt: Minirt, home: Path, made: ImageStore, dockerd: "object"
) -> None:
    from tests.peers.docker import Dockerd

    assert isinstance(dockerd, Dockerd)
    login(minirt, locked)
    name = f"{locked.address}/docker:v1"
    minirt.output("image", "push", NAME, name)
    dockerd.output("pull", name)
    dockerd.output("logout", locked.address)
    assert minirt("image", "pull", name).returncode == 125
    dockerd.output("login", "-u", USER, "-p", PASSWORD, locked.address)
    minirt.output("image", "pull", name)


@pytest.mark.parametrize("how", ["credsStore", "credHelpers"])
def test_a_credential_helper(
    locked: Registry, made: ImageStore, minirt: Minirt, home: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    helper = home / "bin/docker-credential-test"
    helper.parent.mkdir()
    helper.write_text(HELPER)
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    (home / ".docker").mkdir()
    settings = {"credsStore": "test"} if how == "credsStore" else {"credHelpers": {locked.address: "test"}}
    (home / ".docker/config.json").write_text(json.dumps(settings))
    name = f"{locked.address}/helped:v1"
    assert minirt("image", "push", NAME, name).returncode == 125
    login(minirt, locked)
    kept = json.loads((home / "bin/kept").read_text())
    assert kept == {"ServerURL": locked.address, "Username": USER, "Secret": PASSWORD}
    assert json.loads((home / ".docker/config.json").read_text()) == settings
    minirt.output("image", "push", NAME, name)
    minirt.output("logout", locked.address)
    assert not (home / "bin/kept").exists()
    helper.write_text("#!/bin/sh\necho the keychain is locked >&2; exit 3\n")
    done = minirt("image", "pull", name)
    assert "cannot run docker-credential-test get: the keychain is locked" in done.stderr
    helper.unlink()
    assert "cannot run docker-credential-test: No such file or directory" in minirt("image", "pull", name).stderr


def test_credentials_that_are_given(locked: Registry, made: ImageStore) -> None:
    """As the CRI's PullImage gives them: they come before the files."""
    name = f"{locked.address}/given:v1"
    made.push(NAME, name, credentials=Credentials(USER, PASSWORD))
    assert made.pull(name, credentials=Credentials(USER, PASSWORD)).names
    with pytest.raises(RegistryError, match=r"authentication required \(401\)"):
        made.pull(name, credentials=Credentials(USER, "wrong"))
