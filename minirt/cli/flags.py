"""The words of docker's flags, read: KEY=VALUE, HOST:PATH:ro, IP:HOST:PORT/udp, 64m."""

import ipaddress
import os
import re
from typing import TYPE_CHECKING, get_args

from minirt import paths
from minirt.errors import InvalidInput, StepFailed

if TYPE_CHECKING:
    from minirt.cgroups.resources import DeviceRule
    from minirt.engine.records import Port, Volume
    from minirt.oci.spec import Device

UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def size(text: str) -> int:
    """Return bytes: a number with b, k, m, g or t (powers of 1024), as docker reads it; -1 is no limit."""
    number, unit = text[:-1], text[-1:].lower()
    if text == "-1":
        return -1
    if unit.isdigit():
        number, unit = text, "b"
    try:
        return int(float(number) * UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise InvalidInput(
            f"use the size {text!r}", "it is no number with b, k, m, g or t", "for example 64m"
        ) from None


def name(text: str) -> str:
    """Return a container's name, if it can be one."""
    if not paths.is_id(text):
        why = "a name is 1 to 128 letters, digits, '_', '.', '-', a letter or digit first"
        raise InvalidInput(f"use the name {text!r}", why, "choose another")
    return text


def variables(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return environment variables; a KEY alone is taken from our own environment, and left out where it is not set."""
    found = []
    for text in texts:
        key, sign, value = text.partition("=")
        if not key:
            raise InvalidInput(f"set the variable {text!r}", "it has no name", "write KEY=VALUE")
        if sign or key in os.environ:
            found.append((key, value if sign else os.environ[key]))
    return tuple(found)


def labels(texts: tuple[str, ...]) -> dict[str, str]:
    """Return labels; one without a value is empty."""
    return dict(text.partition("=")[::2] for text in texts)


def directory(text: str) -> str:
    """Return a working directory ("" is the image's)."""
    if text and not text.startswith("/"):
        raise InvalidInput(f"work in {text!r}", "it is not an absolute path", f"did you mean /{text}?")
    return text


def volumes(texts: tuple[str, ...]) -> tuple["Volume", ...]:
    """Return volumes."""
    return tuple(_volume(text) for text in texts)


def check_places(places: list[str]) -> None:
    """See that each volume and tmpfs has a place of its own. Raises InvalidInput."""
    for place in places:
        if places.count(place) > 1:
            raise InvalidInput(f"mount on {place}", "two volumes want to be there", "give each a place of its own")


def _volume(text: str) -> "Volume":
    from minirt.engine.records import Volume

    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source.startswith("/") or not target.startswith("/") or mode not in {"", "ro", "rw"}:
        why = "it is not /HOST/PATH:/CONTAINER/PATH[:ro]"
        raise InvalidInput(f"use the volume {text!r}", why, "give absolute paths")
    place = os.path.normpath("/" + target.lstrip("/"))
    if place == "/":
        raise InvalidInput(f"use the volume {text!r}", "it would hide the whole image", "mount it below /")
    return Volume(source, place, readonly=mode == "ro")


def make_sources(volumes: tuple["Volume", ...]) -> None:
    """Make the directories of the host that volumes name and that are missing, as docker's -v does.

    Raises:
        StepFailed: one cannot be made.
    """
    for volume in volumes:
        try:
            if not os.path.lexists(volume.source):
                os.makedirs(volume.source)
        except OSError as error:
            raise StepFailed.from_os_error(f"make the volume {volume.source}", error) from error


def is_vendors(text: str) -> bool:
    """Say whether a device is one of a vendor's (CDI), as podman and docker tell."""
    return "=" in text and not text.startswith("/")


def devices(texts: tuple[str, ...]) -> tuple[tuple["Device", ...], tuple["DeviceRule", ...]]:
    """Return the nodes of HOST[:CONTAINER][:rwm], and the rules that let them be used."""
    from minirt.engine.devices import devices_at, rules_for

    nodes: list[Device] = []
    rules: list[DeviceRule] = []
    for text in filter(lambda text: not is_vendors(text), texts):
        host, *rest = text.split(":")
        access = rest.pop() if rest and re.fullmatch("[rwm]{1,3}", rest[-1]) else "rwm"
        place = rest.pop() if rest and rest[0] else host
        if any(rest) or not (host.startswith("/") and place.startswith("/")):
            why = "it is not /HOST/PATH[:/CONTAINER/PATH][:rwm]"
            raise InvalidInput(f"use the device {text!r}", why, "for example /dev/fuse")
        found = devices_at(host, os.path.normpath(place))
        nodes += found
        rules += rules_for(found, access)
    return tuple(nodes), tuple(rules)


def device_rules(texts: tuple[str, ...]) -> tuple["DeviceRule", ...]:
    """Return rules as docker and cgroup v1 write them: ``c 1:3 rwm``, ``b 8:* r``."""
    return tuple(_device_rule(text) for text in texts)


def _device_rule(text: str) -> "DeviceRule":
    from minirt.cgroups.resources import DeviceRule

    found = re.fullmatch(r"([abc]) (\d+|\*):(\d+|\*) ([rwm]{1,3})", text)
    if not found:
        why = "it is not TYPE MAJOR:MINOR ACCESS, with a, b or c, numbers or *, and letters of rwm"
        raise InvalidInput(f"use the device rule {text!r}", why, "for example 'c 10:229 rwm'")
    kind, major, minor, access = found.groups()
    first, second = (None if number == "*" else int(number) for number in (major, minor))
    return DeviceRule(True, kind, first, second, access)  # type: ignore[arg-type]


def ports(texts: tuple[str, ...], network: str) -> tuple["Port", ...]:
    """Return ports to publish, which only a bridge can lead to a container."""
    if texts and network != "bridge":
        why = f"the network is {network}, and ports are led through the bridge"
        raise InvalidInput(f"publish {texts[0]!r}", why, "leave out -p, or use --network bridge")
    return tuple(_port(text) for text in texts)


def _port(text: str) -> "Port":
    from minirt.engine.records import Port, Protocol

    numbers, _, protocol = text.partition("/")
    address, _, pair = numbers.rpartition(":")
    address, _, host = address.rpartition(":")
    try:
        if address[:1] + address[-1:] == "[]":
            address = str(ipaddress.IPv6Address(address[1:-1]))
        elif address:
            ipaddress.IPv4Address(address)
        if protocol not in {"", *get_args(Protocol)}:
            raise ValueError(protocol)
        return Port(_number(pair), _number(host), protocol or "tcp", address)  # type: ignore[arg-type]
    except ValueError:
        why = "it is not [IP:]HOST:CONTAINER[/udp], with ports from 1 to 65535"
        raise InvalidInput(f"publish {text!r}", why, "for example 8080:80") from None


def _number(text: str) -> int:
    number = int(text)
    if not 0 < number < 1 << 16:
        raise ValueError(text)
    return number
