"""How ``minirt`` and ``minirt-oci`` are started: by scripts that have Python leave out what only other programs need.

    python -m minirt.launcher minirt-oci /usr/local/bin/minirt-oci

The script that pip makes has Python look through the environment, the user's packages and every .pth file before its
first line: 5 ms, as long as an empty Python takes. Ours starts with ``-I -S -B`` and names the few directories that
are searched, so it means the same whoever calls it: by any name, through a symlink, in any directory, with any
environment. It is for the installation that it was written in; ``tools/make-venv`` writes both over those of pip. With
each goes an archive of what its commonest commands import (archive.py).

Source: https://docs.python.org/3/using/cmdline.html, "Miscellaneous options"; execve(2), "Interpreter scripts"
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from minirt.errors import InvalidInput


class Command(NamedTuple):
    """A command: what it needs besides the standard library, where it begins, and what most of its starts import."""

    packages: tuple[str, ...]
    main: str
    imports: tuple[str, ...]


_CORE = ("minirt", "msgspec", "_cffi_backend", "_prctl", "pyseccomp", "jeepney")
COMMANDS = {
    "minirt": Command(
        (*_CORE, "click", "google.protobuf", "grpc", "isal", "pyroute2", "rich", "urllib3", "yaml", "zstandard"),
        "minirt.cli.main",
        (
            *("minirt.cli.main", "minirt.shim.server", "minirt.cli.root", "minirt.cli.run", "minirt.cli.streams"),
            *("minirt.cli.podrun", "minirt.cli.pod", "minirt.cli.containers", "minirt.cli.exec", "minirt.cli.limits"),
            *("minirt.engine.images", "minirt.network.bridge", "minirt.network.firewall", "minirt.network.rtnetlink"),
            *("minirt.network.settings", "subprocess"),
        ),
    ),
    "minirt-oci": Command(
        _CORE,
        "minirt.oci.runtime.command",
        ("minirt.oci.runtime.command", "minirt.oci.runtime.handlers", "minirt.oci.runtime.lifecycle"),
    ),
}

LONGEST = 255
"""Bytes of a script's first line that the kernel reads."""

SCRIPT = """\
#!{python} -ISB
import gc
import sys

gc.disable()
sys.path += {directories}
from minirt import archive

archive.install({name!r})
from {main} import main

main()
"""

ARCHIVE = """\
import importlib, sys
sys.path += {directories}
from minirt import archive, imports
imports.msgspec_alone()
for name in {imports}:
    importlib.import_module(name)
archive.write({name!r}, sorted(sys.modules))
"""


def script(name: str, python: str, directories: Iterable[str]) -> str:
    """Return a script that runs a command with this interpreter, and finds packages in these directories.

    Raises:
        InvalidInput: the kernel could not read the interpreter's path from it.
    """
    text = SCRIPT.format(python=python, directories=list(directories), name=name, main=COMMANDS[name].main)
    first = text.partition("\n")[0]
    if len(os.fsencode(first)) > LONGEST or len(first.split()) != 2:
        why = "it has a blank, or is too long for the first line of a script"
        raise InvalidInput(f"start {name} with {python}", why, "install minirt at another path")
    return text


def directories_of(names: Iterable[str]) -> list[str]:
    """Return the directories that hold these packages and modules, each once. Raises ImportError: one is missing."""
    return list(dict.fromkeys(map(_directory_of, names)))


def _directory_of(name: str) -> str:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ImportError(f"{name} is not installed")
    above = Path(found.origin).parent
    depth = name.count(".") + (1 if found.submodule_search_locations else 0)
    return str([above, *above.parents][depth])


def write(name: str, path: Path) -> None:
    """Write the script of this installation and its archive, each whole or not at all: an engine may be calling them.

    Raises:
        InvalidInput: the interpreter's path cannot stand in a script.
        OSError: a file cannot be written.
        CalledProcessError: what it imports cannot be imported.
    """
    command = COMMANDS[name]
    directories = directories_of(command.packages)
    text = script(name, sys.executable, directories)
    code = ARCHIVE.format(directories=directories, imports=command.imports, name=name)
    subprocess.run([sys.executable, "-ISB", "-c", code], check=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text)
    new.chmod(0o755)
    new.rename(path)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: python -m minirt.launcher {'|'.join(COMMANDS)} PATH")
    write(sys.argv[1], Path(sys.argv[2]))
