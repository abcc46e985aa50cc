"""What an image's config says after an instruction that makes no layer: ENV, CMD, USER and the like.

A config is kept as the JSON object it is, so that what is not understood here (of a base image) stays in it.

Source: image-spec config.md; https://docs.docker.com/reference/dockerfile
"""

import copy
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any

from minirt.builder import words
from minirt.builder.dockerfile import Instruction, json_words
from minirt.images.image import Image, ImageConfig, Platform

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


class Settings:
    """The config of an image under construction, and the arguments of its stage."""

    def __init__(self, config: dict[str, Any], escape: str) -> None:
        self.document = copy.deepcopy(config)
        self.run: dict[str, Any] = self.document.setdefault("config", None) or {}
        self.document["config"] = self.run
        self.arguments: dict[str, str] = {}
        self._escape = escape
        self._has_cmd = False

    @classmethod
    def scratch(cls, platform: Platform, escape: str) -> "Settings":
        """Return those of an image with nothing in it."""
        named = {"architecture": platform.architecture, "os": platform.os}
        named |= {"variant": platform.variant} if platform.variant else {}
        return cls({**named, "config": {"Env": [DEFAULT_PATH]}, "rootfs": {"type": "layers", "diff_ids": []}}, escape)

    @property
    def env(self) -> dict[str, str]:
        """Return the image's environment."""
        return dict(entry.partition("=")[::2] for entry in self.run.get("Env") or ())

    @property
    def variables(self) -> Mapping[str, str]:
        """Return what words may refer to: arguments, and the environment before them."""
        return self.arguments | self.env

    @property
    def shell(self) -> tuple[str, ...]:
        """Return what a command that is no list is given to."""
        return tuple(self.run.get("Shell") or DEFAULT_SHELL)

    @property
    def working_dir(self) -> str:
        """Return the directory of relative paths."""
        return str(self.run.get("WorkingDir") or "/")

    def image(self, image_id: str, diff_ids: tuple[str, ...]) -> Image:
        """Return an image of these settings and layers, to run something in."""
        run = ImageConfig(
            env=tuple(self.run.get("Env") or ()),
            user=str(self.run.get("User") or ""),
            working_dir=self.working_dir,
        )
        platform = Platform(self.document["os"], self.document["architecture"], self.document.get("variant", ""))
        return Image(image_id, (), (), 0, run, "", platform, diff_ids)

    def expand(self, text: str) -> str:
        """Return a word with its variables replaced. Raises InvalidInput: it makes no sense."""
        return words.expand(text, self.variables, self._escape)

    def words(self, one: Instruction) -> list[str]:
        """Return the words of an instruction, expanded: those of a JSON list, or as they stand."""
        if one.words is not None:
            return [self.expand_plain(word) for word in one.words]
        return [self.expand(word) for word in words.split(one.text, self._escape)]

    def expand_plain(self, text: str) -> str:
        """Return a word of a JSON list with its variables replaced; quotes in it are themselves."""
        quoted = text.replace(self._escape, self._escape * 2).replace('"', f'{self._escape}"')
        return words.expand(f'"{quoted}"', self.variables, self._escape)

    def command(self, one: Instruction) -> tuple[str, ...]:
        """Return the command of an instruction: a list as it is, a text given to the shell."""
        return one.words if one.words is not None else (*self.shell, one.text)

    def pairs(self, one: Instruction) -> dict[str, str]:
        """Return KEY=VALUE words as a dict; or, as it once was written, one key and the rest of the line.

        Raises:
            InvalidInput: there is no "=", or no key.
        """
        parts = words.split(one.text, self._escape)
        if "=" not in parts[0]:
            key, _, value = one.text.partition(" ")
            if not value.strip():
                raise one.fault(f"{key} has no value", "write KEY=VALUE")
            return {self.expand(key): self.expand(value.strip())}
        if odd := next((part for part in parts if part.find("=") < 1), None):
            raise one.fault(f"{odd} is not KEY=VALUE", "put quotes around a value with spaces")
        return {self.expand(key): self.expand(value) for key, _, value in (part.partition("=") for part in parts)}

    def argue(self, one: Instruction, given: Mapping[str, str]) -> list[str]:
        """Take in an ARG: what is given for it, else what it says; return the names."""
        names = []
        for part in words.split(one.text, self._escape):
            name, equals, value = part.partition("=")
            names.append(name)
            if name in given:
                self.arguments[name] = given[name]
            elif equals:
                self.arguments[name] = self.expand(value)
        return names

    def apply(self, one: Instruction) -> None:
        """Take in an instruction of SETTINGS. Raises InvalidInput: it makes no sense."""
        _APPLY[one.keyword](self, one)

    def _env(self, one: Instruction) -> None:
        env = self.env | self.pairs(one)
        self.run["Env"] = [f"{key}={value}" for key, value in env.items()]

    def _label(self, one: Instruction) -> None:
        self.run["Labels"] = (self.run.get("Labels") or {}) | self.pairs(one)

    def _cmd(self, one: Instruction) -> None:
        self.run["Cmd"] = list(self.command(one))
        self._has_cmd = True

    def _entrypoint(self, one: Instruction) -> None:
        """Set it; the base image's command, which was for another one, goes."""
        self.run["Entrypoint"] = list(self.command(one))
        if not self._has_cmd:
            self.run.pop("Cmd", None)

    def _expose(self, one: Instruction) -> None:
        ports = dict(self.run.get("ExposedPorts") or {})
        for word in self.words(one):
            found = _PORT.fullmatch(word)
            first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
            if not found or not 0 < first <= last < 1 << 16:
                raise one.fault(f"{word!r} is no port", "write 80, 80/udp or 8000-8010")
            ports |= {f"{port}/{found[3] or 'tcp'}": {} for port in range(first, last + 1)}
        self.run["ExposedPorts"] = ports

    def _volume(self, one: Instruction) -> None:
        named = self.words(one)
        if not all(named):
            raise one.fault("a volume has no name")
        self.run["Volumes"] = (self.run.get("Volumes") or {}) | {name: {} for name in named}

    def _user(self, one: Instruction) -> None:
        self.run["User"] = self.expand(one.text)

    def _workdir(self, one: Instruction) -> None:
        self.run["WorkingDir"] = posixpath.normpath(posixpath.join(self.working_dir, self.expand(one.text)))

    def _stopsignal(self, one: Instruction) -> None:
        self.run["StopSignal"] = self.expand(one.text)

    def _shell(self, one: Instruction) -> None:
        if not one.words:
            raise one.fault("it is no JSON list", 'for example ["/bin/bash", "-c"]')
        self.run["Shell"] = list(one.words)

    def _maintainer(self, one: Instruction) -> None:
        self.document["author"] = one.text

    def _healthcheck(self, one: Instruction) -> None:
        kind, _, rest = one.text.partition(" ")
        if kind.upper() == "NONE" and not rest:
            self.run["Healthcheck"] = {"Test": ["NONE"]}
            return
        if kind.upper() != "CMD" or not rest.strip():
            raise one.fault("it is neither NONE nor CMD and a command")
        inner = Instruction("CMD", rest.strip(), {}, json_words(rest.strip()), one.line, one.source)
        test = ["CMD", *inner.words] if inner.words is not None else ["CMD-SHELL", inner.text]
        names = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod"}
        names["start-interval"] = "StartInterval"
        check: dict[str, Any] = {"Test": test}
        check |= {names[flag]: _nanoseconds(one, value) for flag, value in one.flags.items() if flag in names}
        if retries := one.flags.get("retries"):
            check["Retries"] = int(retries)
        self.run["Healthcheck"] = check


def _nanoseconds(one: Instruction, text: str) -> int:
    """Return one of Go's durations (1m30s) in nanoseconds. Raises InvalidInput."""
    if not _DURATION.fullmatch(text):
        raise one.fault(f"{text!r} is no duration", "for example 30s, 1m30s")
    return round(sum(float(number) * _NS[unit] for number, unit in re.findall(r"([\d.]+)(ns|us|µs|ms|s|m|h)", text)))


_APPLY: dict[str, Callable[[Settings, Instruction], None]] = {
    "CMD": Settings._cmd,
    "ENTRYPOINT": Settings._entrypoint,
    "ENV": Settings._env,
    "EXPOSE": Settings._expose,
    "HEALTHCHECK": Settings._healthcheck,
    "LABEL": Settings._label,
    "MAINTAINER": Settings._maintainer,
    "SHELL": Settings._shell,
    "STOPSIGNAL": Settings._stopsignal,
    "USER": Settings._user,
    "VOLUME": Settings._volume,
    "WORKDIR": Settings._workdir,
}
SETTINGS = frozenset(_APPLY)
"""The instructions that ``Settings.apply`` takes."""
