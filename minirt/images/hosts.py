"""Where a registry is, in fact: its own server and its mirrors, how each is trusted, and what each may be asked for.

    /etc/minirt/certs.d/<host>/hosts.toml      containerd's format; and /etc/containerd/certs.d
    /etc/docker/certs.d/<host>/                docker's: *.crt are CAs, <name>.cert with <name>.key client certificates
                       _default/               for every host without a directory of its own

    server = "https://registry-1.docker.io"    asked last
    [host."https://mirror.example"]            asked in the order of the file
      capabilities = ["pull", "resolve"]       of "pull", "resolve", "push"; all three if it is left out
      ca = "ca.crt"                            paths are relative to the file; a list gives several
      client = [["client.cert", "client.key"]]
      skip_verify = false
      override_path = false                    true: the URL's path stands for /v2
      dial_timeout = "10s"
      [host."https://mirror.example".header]
        x-team = "blue"

What the file says before its first [host] is of the server. Without any of this a registry is reached over HTTPS, and
on this machine's loopback over HTTP; a loopback name with a directory of its own by HTTPS, unless that says not.

Source: containerd's docs/hosts.md; https://docs.docker.com/engine/security/certificates
"""

import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from urllib3.util import parse_url

from minirt import decoding, paths
from minirt.errors import InvalidInput
from minirt.images.reference import DEFAULT_REGISTRY

SERVERS = {DEFAULT_REGISTRY: "https://registry-1.docker.io"}
HOSTS_FILE = "hosts.toml"
DEFAULT_DIRECTORY = "_default"
CONNECT_S = 10.0
"""How long to wait for a connection, if the settings do not say, in seconds."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}
CAPABILITIES = frozenset({"pull", "resolve", "push"})
"""What a host may be asked for: blobs and manifests by digest; what a tag stands for; to take an image."""


class Host(Struct, frozen=True):
    """One server that speaks for a registry. ``base`` is its URL up to and with what stands for /v2.

    ``client`` are pairs of (certificate, key); a key of "" is in the certificate's file.
    """

    base: str
    is_mirror: bool = False
    capabilities: frozenset[str] = CAPABILITIES
    ca: tuple[str, ...] = ()
    client: tuple[tuple[str, str], ...] = ()
    skip_verify: bool = False
    header: dict[str, str] = {}
    connect_s: float = CONNECT_S

    @property
    def authority(self) -> str:
        """Return host and port."""
        return urlsplit(self.base).netloc


class _Settings(Struct, forbid_unknown_fields=True):
    """One host's table."""

    capabilities: list[str] | None = None
    ca: str | list[str] = []
    client: str | list[str | list[str]] = []
    skip_verify: bool = False
    override_path: bool = False
    header: dict[str, str | list[str]] = {}
    dial_timeout: str = ""


class _File(_Settings, forbid_unknown_fields=True):
    server: str = ""
    host: dict[str, _Settings] = {}


def find(registry: str, *, plain_http: bool | None = None) -> list[Host]:
    """Return a registry's hosts in the order in which they are to be asked. ``plain_http`` True: the server by HTTP.

    Raises:
        InvalidInput: its settings make no sense.
    """
    directory = _directory(registry)
    has_own = directory is not None and directory.name != DEFAULT_DIRECTORY
    plain = is_loopback(registry) and not has_own if plain_http is None else plain_http
    default = f"http://{registry}" if plain else SERVERS.get(registry, f"https://{registry}")
    if directory is None:
        return [Host(f"{default}/v2")]
    if not (directory / HOSTS_FILE).exists():
        return [Host(f"{default}/v2", ca=_found(directory, "*.crt"), client=_clients(directory))]
    return _read(directory / HOSTS_FILE, default, forced=bool(plain_http))


def is_loopback(host: str) -> bool:
    """Say whether a registry's host (with or without a port) is this machine's loopback."""
    name = parse_url(f"http://{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _directory(registry: str) -> Path | None:
    """Return the first directory of settings: those of the registry itself before those for all."""
    host, _, port = registry.rpartition(":")
    names = [registry, f"{host}_{port}_"] if host and port.isdigit() else [registry]
    for name in (*names, DEFAULT_DIRECTORY):
        for top in paths.registry_settings():
            if (top / name).is_dir():
                return top / name
    return None


def _found(directory: Path, pattern: str) -> tuple[str, ...]:
    return tuple(str(path) for path in sorted(directory.glob(pattern)))


def _clients(directory: Path) -> tuple[tuple[str, str], ...]:
    """Return docker's pairs of client certificates and keys. Raises InvalidInput: one is without the other."""
    found = []
    for certificate in sorted(directory.glob("*.cert")):
        key = certificate.with_suffix(".key")
        if not key.exists():
            raise InvalidInput(f"use the client certificate {certificate}", f"there is no {key.name}", "put it beside")
        found.append((str(certificate), str(key)))
    return tuple(found)


def _read(path: Path, default: str, *, forced: bool) -> list[Host]:
    what = f"read {path}"
    try:
        found = decoding.convert(tomllib.loads(path.read_text()), _File)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidInput(what, str(error), "see docs/registries.md for what it may hold") from error
    mirrors = [_host(url, settings, path, is_mirror=True) for url, settings in found.host.items()]
    server = default if forced else found.server or default
    return [*mirrors, _host(server, found, path, is_mirror=False)]


def _host(url: str, settings: _Settings, path: Path, *, is_mirror: bool) -> Host:
    what = f"read {path}"
    parts = urlsplit(url if "://" in url else f"https://{url}")
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.username:
        raise InvalidInput(what, f"{url!r} is no address of a registry", "for example https://mirror.example:5000")
    capabilities = frozenset(settings.capabilities or CAPABILITIES)
    if unknown := capabilities - CAPABILITIES:
        raise InvalidInput(what, f"{url} cannot have the capability {min(unknown)!r}", "it is pull, resolve or push")
    base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    if not settings.override_path and not base.endswith("/v2"):
        base += "/v2"
    return Host(
        base,
        is_mirror,
        capabilities,
        tuple(_file(name, path, what) for name in _strings(settings.ca)),
        tuple(_pair(one, path, what) for one in _strings(settings.client)),
        settings.skip_verify,
        {key: value if isinstance(value, str) else ", ".join(value) for key, value in settings.header.items()},
        _seconds(settings.dial_timeout, what),
    )


def _seconds(text: str, what: str) -> float:
    found = _DURATION.fullmatch(text)
    if text and not found:
        raise InvalidInput(what, f"dial_timeout {text!r} is no duration", "for example 500ms, 10s, 1m")
    return float(found[1]) * _SECONDS[found[2]] if found else CONNECT_S


def _strings(value: str | list[Any]) -> list[Any]:
    return [value] if isinstance(value, str) else value


def _pair(value: str | list[str], path: Path, what: str) -> tuple[str, str]:
    if isinstance(value, str):
        return _file(value, path, what), ""
    if len(value) != 2:
        raise InvalidInput(what, f"client {value} is no pair", "write [[certificate, key]]")
    return _file(value[0], path, what), _file(value[1], path, what)


def _file(name: str, path: Path, what: str) -> str:
    found = path.parent / name
    if not found.is_file():
        raise InvalidInput(what, f"there is no file {found}", "paths are relative to hosts.toml")
    return str(found)
