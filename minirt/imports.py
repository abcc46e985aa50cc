"""How some packages are imported: without what they would like to have at hand, and minirt never uses.

msgspec takes ``get_type_hints`` from typing_extensions where that is installed (gRPC brings it), else from typing,
which does as well from Python 3.11 on: 13 ms and 1.6 MB that every fork of the zygote copies. It also looks up the
types of UUIDs, decimals and dates, to know them when it meets one. None is in a manifest, a spec or a state file of
ours, so it is shown stand-ins: another 5 ms; and 1 for what describes types. Who imports those modules later gets the
real ones.

Many modules compile regular expressions as they are imported, for what may be asked of them one day: yaml one for all
characters that are no text (3 ms), and the reader in C that is used here never asks.
"""

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

ABSENT = ("typing_extensions",)
STAND_INS = {"uuid": ("UUID", "SafeUUID"), "decimal": ("Decimal",)}
"""Modules that msgspec wants a class or two of."""
LATER = {"msgspec.inspect": (), "msgspec._json_schema": ("schema", "schema_components")}
"""Parts of msgspec that describe types to others, with their functions: imported when one is called."""


def msgspec_alone() -> None:
    """Import msgspec as if all this were not installed; a process that has it already is left as it is."""
    if "msgspec" in sys.modules:
        return
    shown = _shown()
    sys.modules.update(shown)
    try:
        import msgspec as msgspec
    finally:
        for name in shown:
            del sys.modules[name]


def _shown() -> dict[str, types.ModuleType]:
    """Return what msgspec finds under the names of modules that nobody has imported yet."""
    import _datetime  # type: ignore[import-not-found]  # its classes, without their copies in Python

    shown: dict[str, types.ModuleType] = {"datetime": _datetime}
    shown |= dict.fromkeys(ABSENT)  # type: ignore[arg-type]  # None: importing it fails
    for name, attributes in STAND_INS.items():
        shown[name] = types.ModuleType(name)
        for attribute in attributes:
            setattr(shown[name], attribute, type(attribute, (), {"unknown": None}))
    for name, functions in LATER.items():
        shown[name] = types.ModuleType(name)
        for function in functions:
            setattr(shown[name], function, _later(name, function))
    return {name: module for name, module in shown.items() if name not in sys.modules}


def _later(module: str, function: str) -> Callable[..., Any]:
    """Return a function that imports another, and calls it."""

    def call(*arguments: Any, **named: Any) -> Any:
        import importlib

        real = {part: importlib.import_module(part) for part in LATER}
        return getattr(real[module], function)(*arguments, **named)

    return call


class _Pattern:
    """A regular expression that is compiled when it is first used."""

    def __init__(self, compiled: Callable[[], Any]) -> None:
        self._compiled = compiled

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._compiled(), name)
        setattr(self, name, value)
        return value


@contextlib.contextmanager
def patterns_later() -> Iterator[None]:
    """Leave the regular expressions of modules that are imported meanwhile to be compiled when they are used.

    It changes ``re.compile`` for the whole process: use it where there is one thread, as a command starts.
    """
    import functools
    import re

    real = re.compile
    re.compile = lambda *arguments, **named: _Pattern(functools.partial(real, *arguments, **named))  # type: ignore[assignment]
    try:
        yield
    finally:
        re.compile = real
