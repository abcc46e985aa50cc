"""The entry point of ``minirt-oci``: words in, exit code out; errors to stderr and, as its callers read them, to --log.

Exit codes: 0; 1 for any error; of ``run`` and ``exec`` in the foreground, the program's.
Source: https://github.com/opencontainers/runc (the command line that its callers rely on)
"""

import gc
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from minirt import imports
from minirt.errors import InvalidInput, MinirtError, StepFailed, Unsupported
from minirt.oci.runtime import arguments
from minirt.oci.runtime.arguments import Arguments

LIGHT = {"state", "kill", "delete"}
"""Commands that read no spec: what engines call most often."""


def main() -> NoReturn:
    """Run the command line and exit, without taking the interpreter down piece by piece."""
    gc.disable()
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(argv: list[str]) -> int:
    """Run the command line; return the exit code."""
    log = Log()
    try:
        chosen = arguments.parse(argv)
        log = Log(chosen.flags.get("log", ""), chosen.flags.get("log_format", "text"))
        return _call(chosen, log)
    except MinirtError as error:
        log.error(str(error))
    except OSError as error:
        log.error(str(StepFailed.from_os_error("go on", error)))
    return 1


class Log:
    """Where errors and warnings go: stderr, and the file of --log, a line each."""

    def __init__(self, path: str = "", form: str = "text") -> None:
        self._path = path
        self._form = form

    def error(self, text: str) -> None:
        """Tell of an error."""
        self._write("error", text)

    def warnings(self, texts: list[str]) -> None:
        """Tell of warnings."""
        for text in texts:
            self._write("warning", text)

    def warnings_aside(self, texts: list[str]) -> None:
        """Tell of warnings in the file alone, if there is one: stderr is the program's by now."""
        for text in texts if self._path else []:
            self._append("warning", text)

    def _write(self, level: str, text: str) -> None:
        line = self._append(level, text)
        sys.stderr.write(f"{text}\n" if self._path else line)

    def _append(self, level: str, text: str) -> str:
        """Write a line to the file, if there is one; return it."""
        import datetime
        import json

        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        plain = f"time={json.dumps(now)} level={level} msg={json.dumps(text)}\n"
        line = json.dumps({"level": level, "msg": text, "time": now}) + "\n" if self._form == "json" else plain
        if self._path:
            with open(self._path, "a") as file:
                file.write(line)
        return line


def _call(chosen: Arguments, log: Log) -> int:
    if chosen.command in {"help", "version"}:
        sys.stdout.write(arguments.usage() if chosen.command == "help" else _version())
        return 0
    if chosen.command in {"checkpoint", "restore"}:
        raise Unsupported(chosen.command, "it is not supported", "minirt has no CRIU")
    if chosen.command not in LIGHT:
        imports.msgspec_alone()
    handlers: dict[str, Callable[[Arguments, Log], int]] = _handlers()
    return handlers[chosen.command](chosen, log)


def _version() -> str:
    from minirt import __version__
    from minirt.oci import VERSION

    return f"minirt-oci version {__version__}\nspec: {VERSION}\n"


def _handlers() -> dict[str, Any]:
    from minirt.oci.runtime import handlers

    return handlers.BY_COMMAND


def container_id(chosen: Arguments) -> str:
    """Return the id, the first word. Raises InvalidInput: there is none."""
    if not chosen.words:
        raise InvalidInput(f"run minirt-oci {chosen.command}", "the container's id is missing", "name a container")
    return chosen.words[0]
