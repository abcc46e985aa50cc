"""What each command does with its words: the table between the command line and the operations."""

import json
import signal
import sys
from collections.abc import Callable

from minirt.errors import InvalidInput
from minirt.oci.runtime import execution, lifecycle, reports, state
from minirt.oci.runtime.arguments import Arguments
from minirt.oci.runtime.command import Log, container_id
from minirt.oci.runtime.lifecycle import Options
from minirt.oci.runtime.state import Place


def place_of(chosen: Arguments) -> Place:
    """Return the container that the words name."""
    return state.place(chosen.flags["root"], container_id(chosen))


def _options(chosen: Arguments, *, detach: bool) -> Options:
    flags = chosen.flags
    return Options(
        console_socket=flags["console_socket"],
        pid_file=flags["pid_file"],
        preserve_fds=flags["preserve_fds"],
        detach=detach,
    )


def _create(chosen: Arguments, log: Log) -> int:
    log.warnings(lifecycle.create(place_of(chosen), chosen.flags["bundle"], _options(chosen, detach=True)))
    return 0


def _run(chosen: Arguments, log: Log) -> int:
    options = _options(chosen, detach=chosen.flags["detach"])
    return lifecycle.run(place_of(chosen), chosen.flags["bundle"], options, keep=chosen.flags["keep"])


def _start(chosen: Arguments, log: Log) -> int:
    log.warnings(lifecycle.start(place_of(chosen)))
    return 0


def _state(chosen: Arguments, log: Log) -> int:
    place = place_of(chosen)
    made = place.load()
    sys.stdout.write(json.dumps(state.document(made, place.status(made)), indent=2) + "\n")
    return 0


def _kill(chosen: Arguments, log: Log) -> int:
    number = signal_number(chosen.words[1] if len(chosen.words) > 1 else "TERM")
    lifecycle.kill(place_of(chosen), number, everything=chosen.flags["all"])
    return 0


def signal_number(word: str) -> int:
    """Return the number of ``9``, ``KILL``, ``SIGKILL``, ``RTMIN+1``. Raises InvalidInput: it is no signal."""
    name, _, offset = word.upper().removeprefix("SIG").partition("+")
    try:
        number = int(name) if name.isdigit() else int(signal.Signals[f"SIG{name}"]) + int(offset or 0)
    except (KeyError, ValueError):
        number = 0
    if not 1 <= number <= signal.SIGRTMAX:
        raise InvalidInput(f"send the signal {word}", "there is no such signal", "see kill -l")
    return number


def _delete(chosen: Arguments, log: Log) -> int:
    log.warnings(lifecycle.delete(place_of(chosen), force=chosen.flags["force"]))
    return 0


BY_COMMAND: dict[str, Callable[[Arguments, Log], int]] = {
    "create": _create,
    "start": _start,
    "run": _run,
    "state": _state,
    "kill": _kill,
    "delete": _delete,
    "exec": lambda chosen, log: execution.execute(place_of(chosen), chosen),
    "pause": lambda chosen, _: reports.pause(place_of(chosen)),
    "resume": lambda chosen, _: reports.resume(place_of(chosen)),
    "ps": lambda chosen, _: reports.ps(place_of(chosen), chosen.flags["format"], chosen.words[1:]),
    "list": lambda chosen, _: reports.list_all(
        chosen.flags["root"], chosen.flags["format"], quiet=chosen.flags["quiet"]
    ),
    "update": lambda chosen, _: reports.update(place_of(chosen), chosen.flags),
    "events": lambda chosen, _: reports.events(place_of(chosen), chosen.flags),
    "spec": lambda chosen, _: reports.write_spec(chosen.flags["bundle"]),
    "features": lambda chosen, _: reports.features(),
}
