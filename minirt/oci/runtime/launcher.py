"""How ``minirt-oci`` is started: by a script that has Python leave out what only other programs need.

    python -m minirt.oci.runtime.launcher /usr/local/bin/minirt-oci

The script that pip makes has Python look through the environment, the user's packages and every .pth file before its
first line: 5 ms, as long as an empty Python takes. Ours starts with ``-I -S -B`` and names the few directories that
are searched, so it means the same whoever calls it: by any name, through a symlink, in any directory, with any
environment. It is for the installation that it was written in; ``tools/make-venv`` writes it over the one of pip.

Source: https://docs.python.org/3/using/cmdline.html, "Miscellaneous options"; execve(2), "Interpreter scripts"
"""

import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from minirt.errors import InvalidInput

NEEDED = ("minirt", "msgspec", "_cffi_backend", "_prctl", "jeepney")
"""What ``minirt-oci`` imports besides the standard library."""

LONGEST = 255
"""Bytes of a script's first line that the kernel reads."""

SCRIPT = """\
#!{python} -ISB
import gc
import sys

gc.disable()
sys.path += {directories}
from minirt.oci.runtime.command import main

main()
"""


def script(python: str, directories: Iterable[str]) -> str:
    """Return a script that runs ``minirt-oci`` with this interpreter, and finds packages in these directories.

    Raises:
        InvalidInput: the kernel could not read the interpreter's path from it.
    """
    text = SCRIPT.format(python=python, directories=list(directories))
    first = text.partition("\n")[0]
    if len(os.fsencode(first)) > LONGEST or len(first.split()) != 2:
        why = "it has a blank, or is too long for the first line of a script"
        raise InvalidInput(f"start minirt-oci with {python}", why, "install minirt at another path")
    return text


def directories_of(names: Iterable[str]) -> list[str]:
    """Return the directories that hold these packages and modules, each once. Raises ImportError: one is missing."""
    return list(dict.fromkeys(map(_directory_of, names)))


def _directory_of(name: str) -> str:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ImportError(f"{name} is not installed")
    above = Path(found.origin).parent
    return str(above.parent if found.submodule_search_locations else above)


def write(path: Path) -> None:
    """Write the script of this installation, whole or not at all: an engine may be calling the old one.

    Raises:
        InvalidInput: the interpreter's path cannot stand in a script.
        OSError: the file cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(script(sys.executable, directories_of(NEEDED)))
    new.chmod(0o755)
    new.rename(path)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
