"""What each command does with its words: the table between the command line and the operations.

Each imports its operations when it is called: most of a command's time goes into imports.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from minirt.errors import InvalidInput
from minirt.oci.runtime import state
from minirt.oci.runtime.arguments import Arguments
from minirt.oci.runtime.command import Log, container_id
from minirt.oci.runtime.state import Place

if TYPE_CHECKING:
    from minirt.oci.runtime.options import Options


def place_of(chosen: Arguments) -> Place:
    """Return the container that the words name."""
    return state.place(chosen.flags["root"], container_id(chosen))


def _options(chosen: Arguments, *, detach: bool) -> "Options":
    from minirt.oci.runtime import options

    flags = chosen.flags
    options.check_rootless(flags["rootless"])
    return options.Options(
        console_socket=flags["console_socket"],
        pid_file=flags["pid_file"],
        pidfd_socket=flags["pidfd_socket"],
        preserve_fds=flags["preserve_fds"],
        detach=detach,
        no_pivot=flags["no_pivot"],
        no_new_keyring=flags["no_new_keyring"],
        manager=options.manager(flags),
    )


def _create(chosen: Arguments, log: Log) -> int:
    from minirt.oci.runtime import lifecycle

    log.warnings(lifecycle.create(place_of(chosen), chosen.flags["bundle"], _options(chosen, detach=True)))
    return 0


def _run(chosen: Arguments, log: Log) -> int:
    from minirt.oci.runtime import lifecycle

    options = _options(chosen, detach=chosen.flags["detach"])
    flags = chosen.flags
    return lifecycle.run(place_of(chosen), flags["bundle"], options, log.warnings_aside, keep=flags["keep"])


def _start(chosen: Arguments, log: Log) -> int:
    from minirt.oci.runtime import lifecycle

    log.warnings(lifecycle.start(place_of(chosen)))
    return 0


def _state(chosen: Arguments, log: Log) -> int:
    import json

    place = place_of(chosen)
    made = place.load()
    sys.stdout.write(json.dumps(state.document(made, place.status(made)), indent=2) + "\n")
    return 0


def _kill(chosen: Arguments, log: Log) -> int:
    from minirt.oci.runtime import ending

    number = signal_number(chosen.words[1] if len(chosen.words) > 1 else "TERM")
    ending.kill(place_of(chosen), number, everything=chosen.flags["all"])
    return 0


def signal_number(word: str) -> int:
    """Return the number of ``9``, ``KILL``, ``SIGKILL``, ``RTMIN+1``. Raises InvalidInput: it is no signal."""
    import signal

    name, _, offset = word.upper().removeprefix("SIG").partition("+")
    try:
        number = int(name) if name.isdigit() else int(signal.Signals[f"SIG{name}"]) + int(offset or 0)
    except (KeyError, ValueError):
        number = 0
    if not 1 <= number <= signal.SIGRTMAX:
        raise InvalidInput(f"send the signal {word}", "there is no such signal", "see kill -l")
    return number


def _delete(chosen: Arguments, log: Log) -> int:
    from minirt.oci.runtime import ending

    log.warnings(ending.delete(place_of(chosen), force=chosen.flags["force"]))
    return 0


def _exec(chosen: Arguments, log: Log) -> int:
    from minirt.oci.runtime import execution

    return execution.execute(place_of(chosen), chosen)


def _on_container(chosen: Arguments, log: Log) -> int:
    """Tell of one container, or change it."""
    from minirt.oci.runtime import reports

    place, flags = place_of(chosen), chosen.flags
    match chosen.command:
        case "pause":
            return reports.pause(place)
        case "resume":
            return reports.resume(place)
        case "ps":
            return reports.ps(place, flags["format"], chosen.words[1:])
        case "update":
            from minirt.oci.runtime import update

            return update.update(place, flags)
        case _:
            return reports.events(place, flags)


def _on_none(chosen: Arguments, log: Log) -> int:
    """Do what concerns no container, or all of them."""
    from minirt.oci.runtime import reports

    flags = chosen.flags
    match chosen.command:
        case "list":
            return reports.list_all(flags["root"], flags["format"], quiet=flags["quiet"])
        case "spec":
            return reports.write_spec(flags["bundle"], rootless=flags["rootless"])
        case _:
            return reports.features()


BY_COMMAND: dict[str, Callable[[Arguments, Log], int]] = {
    "create": _create,
    "start": _start,
    "run": _run,
    "state": _state,
    "kill": _kill,
    "delete": _delete,
    "exec": _exec,
    **dict.fromkeys(("pause", "resume", "ps", "update", "events"), _on_container),
    **dict.fromkeys(("list", "spec", "features"), _on_none),
}
