"""Who we are at a registry: docker's config.json, podman's auth.json, credential helpers, Kubernetes' pull secrets.

    {
      "auths":       {"host[/repository]": {"auth": base64 of "user:password", "identitytoken": "…"}},
      "credHelpers": {"host": "ecr-login"},      the program docker-credential-ecr-login knows this host
      "credsStore":  "pass"                      the program docker-credential-pass knows all of them
    }

Looked into in this order: $REGISTRY_AUTH_FILE, and nothing else if it is set; $DOCKER_CONFIG/config.json or
~/.docker/config.json; $XDG_RUNTIME_DIR/containers/auth.json (root's is in /run/containers/0); and
~/.config/containers/auth.json. ``minirt login`` writes into the first of them.

Source: https://docs.docker.com/reference/cli/docker/login; containers-auth.json(5); docker-credential-helpers' README;
Kubernetes' "Images", "Interpretation of config.json"
"""

import base64
import binascii
import contextlib
import fnmatch
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct, field

from minirt import decoding
from minirt.errors import InvalidInput
from minirt.images import helpers
from minirt.images.reference import DEFAULT_REGISTRY

DOCKER_HUB = "https://index.docker.io/v1/"
"""What docker.io is called in these files."""
TOKEN_USER = "<token>"
"""The user name that stands for: the secret is an identity token."""


class Credentials(NamedTuple):
    """A user's name and password at one registry, or what stands for them.

    ``identity_token`` gets tokens from the registry's token server; ``registry_token`` is such a token already.
    """

    user: str
    password: str
    identity_token: str = ""
    registry_token: str = ""


class Entry(Struct, omit_defaults=True):
    """What a file has on one registry."""

    auth: str = ""
    username: str = ""
    password: str = ""
    identity_token: str = field(default="", name="identitytoken")
    registry_token: str = field(default="", name="registrytoken")


class _File(Struct, rename="camel"):
    auths: dict[str, Entry] = {}
    cred_helpers: dict[str, str] = {}
    creds_store: str = ""


def find(registry: str, repository: str = "") -> Credentials | None:
    """Return what the user's files say of a repository, or of a registry; None where that is nothing.

    Raises:
        InvalidInput: a file cannot be read, or makes no sense; a helper fails.
    """
    for path in places():
        with contextlib.suppress(FileNotFoundError):
            if found := _look_up(_read(path), registry, repository, str(path)):
                return found
    return None


def of_document(document: str, registry: str, repository: str, what: str) -> Credentials | None:
    """Return what a pull secret says of a repository; ``document`` is the content of its .dockerconfigjson.

    Raises:
        InvalidInput: it makes no sense. ``what`` names it.
    """
    return _in_auths(_decode(document.encode(), what).auths, registry, repository, what)


def places() -> list[Path]:
    """Return the files that may hold credentials, in the order in which they are looked into."""
    if alone := os.environ.get("REGISTRY_AUTH_FILE"):
        return [Path(alone)]
    home = Path(os.environ.get("HOME") or os.path.expanduser("~"))
    docker = Path(os.environ.get("DOCKER_CONFIG") or home / ".docker")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    containers = Path(runtime, "containers") if runtime else Path(f"/run/containers/{os.geteuid()}")
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return [docker / "config.json", containers / "auth.json", settings / "containers/auth.json"]


def store(registry: str, given: Credentials) -> str:
    """Keep credentials where docker would; return where: a file, or a helper's program.

    Raises:
        InvalidInput: the file makes no sense. OSError: it cannot be written.
    """
    path = places()[0]
    known = _read_if_there(path)
    user = TOKEN_USER if given.identity_token else given.user
    if helper := known.cred_helpers.get(_key(registry)) or known.creds_store:
        helpers.store(helper, _key(registry), user, given.identity_token or given.password)
        return helpers.program(helper)
    packed = base64.b64encode(f"{given.user}:{given.password}".encode()).decode()
    entry = {"auth": packed} | ({"identitytoken": given.identity_token} if given.identity_token else {})
    with _changing(path) as document:
        document.setdefault("auths", {})[_key(registry)] = entry
    return str(path)


def erase(registry: str) -> bool:
    """Forget credentials wherever they are; say whether there were any.

    Raises:
        InvalidInput: a file makes no sense. OSError: it cannot be written.
    """
    found = False
    for path in places():
        known = _read_if_there(path)
        for helper in {known.cred_helpers.get(_key(registry)), known.creds_store} - {None, ""}:
            assert helper
            if helpers.get(helper, _key(registry)):
                helpers.erase(helper, _key(registry))
                found = True
        if keys := [key for key in known.auths if _is_for(key, registry, "")]:
            with _changing(path) as document:
                for key in keys:
                    del document["auths"][key]
            found = True
    return found


def _look_up(known: _File, registry: str, repository: str, what: str) -> Credentials | None:
    helper = known.cred_helpers.get(_key(registry)) or known.cred_helpers.get(registry) or known.creds_store
    if helper and (told := helpers.get(helper, _key(registry))):
        user, secret = told
        return Credentials("", "", secret) if user == TOKEN_USER else Credentials(user, secret)
    return _in_auths(known.auths, registry, repository, what)


def _in_auths(auths: dict[str, Entry], registry: str, repository: str, what: str) -> Credentials | None:
    """Return what fits best: the longest key, and of a host by name before a pattern."""
    fitting = [key for key in auths if _is_for(key, registry, repository)]
    for key in sorted(fitting, key=lambda key: ("*" not in key, len(_plain(key))), reverse=True):
        if found := of_entry(auths[key], f"read the credentials for {key} in {what}"):
            return found
    return None


def of_entry(entry: Entry, what: str) -> Credentials | None:
    """Return what an entry amounts to, None for nothing. Raises InvalidInput: it makes no sense; ``what`` was done."""
    user, password = entry.username, entry.password
    if entry.auth:
        try:
            user, colon, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidInput(what, f"auth is not base64 of user:password: {error}", "log in again") from error
        if not colon:
            raise InvalidInput(what, "auth is not base64 of user:password", "log in again")
        password = password.rstrip("\0")
    found = Credentials(user, password, entry.identity_token, entry.registry_token)
    return found if any(found) else None


def _key(registry: str) -> str:
    return DOCKER_HUB if registry == DEFAULT_REGISTRY else registry


def _plain(key: str) -> str:
    """Return a key without the scheme and the version that docker once wrote: ``https://host/v1/``."""
    plain = key.partition("://")[2] or key
    for version in ("/v1/", "/v1", "/v2/", "/v2"):
        plain = plain.removesuffix(version)
    host, slash, path = plain.rstrip("/").partition("/")
    return (DEFAULT_REGISTRY if host in ("index.docker.io", "registry-1.docker.io") else host) + slash + path


def _is_for(key: str, registry: str, repository: str) -> bool:
    """Say whether a key is of this repository. In a host ``*`` stands for any text within one of its parts."""
    host, _, path = _plain(key).partition("/")
    parts, wanted = host.split("."), registry.split(".")
    same = len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, wanted, parts))
    return same and (not path or f"{repository}/".startswith(f"{path}/"))


def _read_if_there(path: Path) -> _File:
    try:
        return _read(path)
    except FileNotFoundError:
        return _File()


def _read(path: Path) -> _File:
    try:
        return _decode(path.read_bytes(), str(path))
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise InvalidInput(f"read the credentials in {path}", error.strerror or str(error)) from error


def _decode(data: bytes, what: str) -> _File:
    try:
        found = decoding.from_json(data or b"{}", dict[str, Any])
        return decoding.convert({key: value for key, value in found.items() if value is not None}, _File)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        do = "it is to be like docker's config.json"
        raise InvalidInput(f"read the credentials in {what}", str(error), do) from error


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[dict[str, Any]]:
    """Write a file anew, with what the block changes in it, readable for its owner alone; whole, or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = path.resolve()  # a symlink stays one
    try:
        document = json.loads(path.read_bytes() or b"{}")
    except FileNotFoundError:
        document = {}
    yield document
    new = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(json.dumps(document, indent="\t").encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
