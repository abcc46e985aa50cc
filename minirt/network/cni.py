"""CNI: a pod's interface made by plugins that the node's owner has chosen, as programs that speak JSON.

    10-x.conflist ─ find ─▶ Network ─ attach ─▶ ADD, plugin after plugin, each given the last one's result
                                      detach ─▶ DEL, in the other order

    stdin    {"cniVersion", "name", …the plugin's own…, "runtimeConfig": {…}, "prevResult": {…}}
    stdout   the result; or {"code", "msg", "details"} and an exit code that is not 0

What was called with what is kept beside the sandbox before the first ADD, so that DEL is the same network's, whatever
has become of its configuration since, and whoever does it.
Source: https://github.com/containernetworking/cni/blob/spec-v1.0.0/SPEC.md
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from minirt import decoding
from minirt.errors import InvalidInput, NetworkError
from minirt.network.directories import Directories
from minirt.network.plan import INTERFACE

Json = dict[str, Any]
VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
ENDINGS = (".conf", ".conflist", ".json")
TIMEOUT_S = 60.0
FILE = "cni.json"
"""The name of what is kept beside a sandbox."""


class Network(Struct, frozen=True):
    """A configuration list: a name, a version, and what each plugin is told."""

    name: str
    version: str
    plugins: tuple[Json, ...]


class Attachment(Struct, frozen=True):
    """What a sandbox was attached with, and what came of it (None before the last plugin has answered)."""

    network: Network
    directories: tuple[str, ...]
    sandbox: str
    netns: str
    args: dict[str, str]
    capabilities: Json
    result: Json | None = None

    @property
    def addresses(self) -> list[str]:
        """Return the pod's addresses, without their prefixes."""
        return [str(one["address"]).partition("/")[0] for one in (self.result or {}).get("ips", [])]


def find(directories: Directories) -> Network | None:
    """Return the network of the first configuration, by its file's name; None where there is none.

    Raises:
        InvalidInput: it cannot be used.
    """
    try:
        names = sorted(name for name in os.listdir(directories.configurations) if name.endswith(ENDINGS))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _read(Path(directories.configurations, names[0])) if names else None


def _read(file: Path) -> Network:
    what = f"use the CNI configuration {file}"
    try:
        found = json.loads(file.read_bytes())
        plugins = found["plugins"] if file.suffix == ".conflist" or "plugins" in found else [found]
        network = Network(str(found["name"]), str(found.get("cniVersion", "0.2.0")), tuple(plugins))
        missing = [plugin for plugin in plugins if not isinstance(plugin["type"], str)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise InvalidInput(what, why, "it needs name, cniVersion, and plugins with a type each") from error
    if missing or not plugins:
        raise InvalidInput(what, "it names no plugin", "it needs name, cniVersion, and plugins with a type each")
    if network.version not in VERSIONS:
        why = f"its cniVersion is {network.version}"
        raise InvalidInput(what, why, f"use one of {', '.join(VERSIONS)}")
    return network


def attach(place: Path, attachment: Attachment) -> Attachment:
    """Have the plugins attach a sandbox, and keep what came of it in the directory ``place``; return that.

    On an error what was made is undone, as far as the plugins do so.

    Raises:
        NetworkError: a plugin is not there, or refused.
    """
    _keep(place, attachment)
    result: Json | None = None
    try:
        for plugin in attachment.network.plugins:
            result = _call("ADD", attachment, plugin, result) or result
    except NetworkError:
        detach(place)
        raise
    attachment = msgspec.structs.replace(attachment, result=result or {})
    _keep(place, attachment)
    return attachment


def check(place: Path) -> None:
    """Have the plugins look whether all is as ADD has left it. Raises NetworkError: it is not, or never was."""
    attachment = attached(place)
    if attachment is None or attachment.result is None:
        raise NetworkError("check the pod's network", "it is not attached")
    for plugin in attachment.network.plugins:
        _call("CHECK", attachment, plugin, attachment.result)


def detach(place: Path) -> None:
    """Have the plugins take a sandbox off its network; one that is not on it is fine.

    All are called, whatever one says. Of a sandbox that was never attached they may say no: what made ADD fail may make
    DEL fail, too.

    Raises:
        NetworkError: a plugin refused; the record stays, so that it can be done again.
    """
    attachment = attached(place)
    if attachment is None:
        return
    if not os.path.exists(attachment.netns):
        attachment = msgspec.structs.replace(attachment, netns="")
    refused: list[NetworkError] = []
    for plugin in reversed(attachment.network.plugins):
        try:
            _call("DEL", attachment, plugin, attachment.result)
        except NetworkError as error:
            refused.append(error)
    if refused and attachment.result is not None:
        raise refused[0]
    (place / FILE).unlink(missing_ok=True)


def attached(place: Path) -> Attachment | None:
    """Return what is kept beside a sandbox, None where nothing is."""
    try:
        return decoding.from_json((place / FILE).read_bytes(), Attachment)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _keep(place: Path, attachment: Attachment) -> None:
    temporary = place / f".{FILE}"
    temporary.write_bytes(msgspec.json.encode(attachment))
    temporary.rename(place / FILE)


def _call(command: str, attachment: Attachment, plugin: Json, before: Json | None) -> Json | None:
    """Run one plugin; return its result, None where it printed none. Raises NetworkError."""
    what = f"{'attach' if command == 'ADD' else command} the pod by the CNI plugin {plugin['type']}"
    program = shutil.which(plugin["type"], path=os.pathsep.join(attachment.directories))
    if program is None or "/" in plugin["type"]:
        why = f"it is not in {', '.join(attachment.directories)}"
        raise NetworkError(what, why, "apt install containernetworking-plugins, or see --cni-bin-dir")
    told = json.dumps(_configuration(attachment, plugin, before)).encode()
    try:
        done = subprocess.run(
            [program],
            input=told,
            capture_output=True,
            env=_environment(command, attachment),
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(what, str(error), "does it run by itself?") from error
    if done.returncode:
        raise NetworkError(what, _why(done), "see the plugin's documentation")
    try:
        result: Json | None = json.loads(done.stdout) if done.stdout.strip() else None
    except ValueError as error:
        raise NetworkError(what, f"what it answered is no JSON: {error}") from error
    return result


def _environment(command: str, attachment: Attachment) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": attachment.sandbox,
        "CNI_NETNS": attachment.netns,
        "CNI_IFNAME": INTERFACE,
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in attachment.args.items()),
        "CNI_PATH": os.pathsep.join(attachment.directories),
    }


def _configuration(attachment: Attachment, plugin: Json, before: Json | None) -> Json:
    """Return what a plugin is told: its own part, the list's name and version, what it asked for, what came before."""
    told = plugin | {"cniVersion": attachment.network.version, "name": attachment.network.name}
    asked = [name for name, wanted in (told.pop("capabilities", None) or {}).items() if wanted]
    given = {name: attachment.capabilities[name] for name in asked if attachment.capabilities.get(name)}
    if given:
        told["runtimeConfig"] = given
    if before is not None:
        told["prevResult"] = before
    return told


def _why(done: "subprocess.CompletedProcess[bytes]") -> str:
    """Return a plugin's reason: its error's message, else whatever it wrote."""
    try:
        error = json.loads(done.stdout)
        return ": ".join(filter(None, (str(error["msg"]), str(error.get("details", "")))))
    except (ValueError, KeyError, TypeError):
        text = (done.stderr or done.stdout).decode(errors="replace").strip()
        return f"exit code {done.returncode}: {text[-500:]}"
