"""The command line of ``minirt-oci``, parsed by hand: engines call it often, and an import costs more than the rest.

    minirt-oci [global flags] COMMAND [flags] ID [words…]

The flags are runc's, as its callers send them: ``--flag value``, ``--flag=value``, ``-b value``. A flag after the id is
one of the container's words.
"""

from collections.abc import Callable
from typing import Any

from minirt.errors import InvalidInput


class Flag:
    """One flag: its names, the key of its value, whether it takes a value, whether it may be given again.

    A plain class: a named tuple takes thirty times as long to define, and every call of an engine's pays for it.
    """

    __slots__ = ("convert", "default", "key", "names", "repeats", "takes_value")

    def __init__(
        self,
        *names: str,
        takes_value: bool = True,
        repeats: bool = False,
        default: Any = "",
        convert: Callable[[str], Any] = str,
    ) -> None:
        self.names = names
        self.key = names[-1].lstrip("-").replace("-", "_")
        self.takes_value = takes_value
        self.repeats = repeats
        self.default = default
        self.convert = convert


def _switch(*names: str) -> Flag:
    return Flag(*names, takes_value=False, default=False)


def _value(*names: str, default: Any = "", convert: Callable[[str], Any] = str) -> Flag:
    return Flag(*names, default=default, convert=convert)


def _list(*names: str) -> Flag:
    return Flag(*names, repeats=True)


GLOBAL = (
    _value("--root", default="/run/minirt-oci"),
    _value("--log"),
    _value("--log-format", default="text"),
    _value("--rootless"),
    _value("--cgroup-manager"),
    _switch("--debug"),
    _switch("--systemd-cgroup"),
    _switch("-v", "--version"),
    _switch("-h", "--help"),
)
_BUNDLE = _value("-b", "--bundle", default=".")
_CONSOLE = _value("--console-socket")
_PID_FILE = _value("--pid-file")
_FDS = _value("--preserve-fds", default=0, convert=int)
_PIDFD = _value("--pidfd-socket")
_FORMAT = _value("-f", "--format", default="table")
_CREATE = (
    _BUNDLE,
    _CONSOLE,
    _PID_FILE,
    _FDS,
    _PIDFD,
    _switch("--no-pivot"),
    _switch("--no-new-keyring"),
)
_LIMITS = (
    "--memory",
    "--memory-reservation",
    "--memory-swap",
    "--cpu-period",
    "--cpu-quota",
    "--cpu-share",
    "--cpu-burst",
    "--cpuset-cpus",
    "--cpuset-mems",
    "--pids-limit",
    "--blkio-weight",
    "--cpu-idle",
)
COMMANDS: dict[str, tuple[tuple[Flag, ...], str]] = {
    "create": (_CREATE, "prepare a container and have its init wait for start"),
    "start": ((), "let a created container's program run"),
    "run": ((*_CREATE, _switch("-d", "--detach"), _switch("--keep"), _switch("--no-subreaper")), "create and start"),
    "state": ((), "print a container's state as JSON"),
    "kill": ((_switch("-a", "--all"),), "send a signal to a container's init, or to all its processes"),
    "delete": ((_switch("-f", "--force"),), "remove a container that has ended"),
    "exec": (
        (
            _value("-p", "--process"),
            _switch("-d", "--detach"),
            _switch("-t", "--tty"),
            _list("-e", "--env"),
            _value("-u", "--user"),
            _value("--cwd"),
            _list("-g", "--additional-gids"),
            _list("-c", "--cap"),
            _switch("--no-new-privs"),
            _PID_FILE,
            _CONSOLE,
            _FDS,
            _PIDFD,
            _switch("--ignore-paused"),
            _value("--cgroup"),
            _value("--apparmor"),
            _value("--process-label"),
        ),
        "execute another process in a running container",
    ),
    "pause": ((), "freeze all processes of a container"),
    "resume": ((), "let them go on"),
    "ps": ((_FORMAT,), "list the processes of a container"),
    "list": ((_FORMAT, _switch("-q", "--quiet")), "list containers"),
    "update": ((_value("-r", "--resources"), *(_value(name) for name in _LIMITS)), "change a container's limits"),
    "events": ((_switch("--stats"), _value("--interval", default="5s")), "tell what a container uses"),
    "spec": ((_BUNDLE, _switch("--rootless")), "write a config.json to begin with"),
    "features": ((), "print what this runtime supports as JSON"),
    "checkpoint": ((), "not supported"),
    "restore": ((), "not supported"),
}
"""Each command's flags, and what it does."""


class Arguments:
    """A command line, parsed. ``flags`` holds the global ones and the command's, by long name (``pid_file``)."""

    __slots__ = ("command", "flags", "words")

    def __init__(self, command: str, words: tuple[str, ...], flags: dict[str, Any]) -> None:
        self.command = command
        self.words = words
        self.flags = flags


def parse(argv: list[str]) -> Arguments:
    """Return what the words mean.

    Raises:
        InvalidInput: an unknown command or flag, or one without its value.
    """
    flags, rest = _take(list(argv), GLOBAL, "minirt-oci")
    if not rest or flags["version"] or flags["help"]:
        return Arguments("version" if flags["version"] else "help", (), flags)
    command, *rest = rest
    if command not in COMMANDS:
        raise InvalidInput(f"run minirt-oci {command}", "there is no such command", "see minirt-oci --help")
    own, words = _take(rest, COMMANDS[command][0], command)
    return Arguments(command, tuple(words), flags | own)


def _take(words: list[str], known: tuple[Flag, ...], of: str) -> tuple[dict[str, Any], list[str]]:
    """Take flags from the front of ``words``; return their values and the rest."""
    by_name = {name: flag for flag in known for name in flag.names}
    values: dict[str, Any] = {flag.key: [] if flag.repeats else flag.default for flag in known}
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        name, _, attached = word.partition("=")
        flag = by_name.get(name)
        if flag is None:
            raise InvalidInput(f"run {of}", f"it has no flag {name}", "see minirt-oci --help")
        value = _value_of(flag, word, attached, words, of)
        values[flag.key] = [*values[flag.key], value] if flag.repeats else value
    return values, words


def _value_of(flag: Flag, word: str, attached: str, words: list[str], of: str) -> Any:
    if not flag.takes_value:
        return attached != "false"
    if "=" not in word and not words:
        raise InvalidInput(f"run {of}", f"{word} needs a value", "see minirt-oci --help")
    text = attached if "=" in word else words.pop(0)
    try:
        return flag.convert(text)
    except ValueError:
        raise InvalidInput(f"run {of}", f"{flag.names[-1]} takes a number, not {text!r}") from None


def usage() -> str:
    """Return the help text."""
    lines = [f"  {name:<11} {what}" for name, (_, what) in COMMANDS.items()]
    flags = " ".join(f"[{flag.names[-1]}{' …' if flag.takes_value else ''}]" for flag in GLOBAL)
    return "\n".join([f"Usage: minirt-oci {flags} COMMAND [flags] ID", "", "Commands:", *lines, ""])
