"""How msgspec is imported: without what it would like to have at hand, and minirt never uses.

msgspec takes ``get_type_hints`` from typing_extensions where that is installed (gRPC brings it), else from typing,
which does as well from Python 3.11 on. The one costs 13 ms and 1.6 MB that every fork of the zygote copies. Its parts
for other formats, and for looking into types, are imported when somebody asks them for something: 1 ms.
"""

import sys
from types import ModuleType
from typing import Any

PARTS = ("msgspec.inspect", "msgspec.msgpack", "msgspec.toml", "msgspec.yaml")


class Later(ModuleType):
    """Stands for a module until something of it is asked for; then that is imported in its place."""

    def __getattr__(self, name: str) -> Any:
        """Return what the module has by this name."""
        import importlib

        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def lean_msgspec() -> None:
    """Have msgspec imported so wherever this process does it, and typing_extensions never."""
    sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]  # so that importing it fails
    _parts_later()


def msgspec_alone() -> None:
    """Import msgspec as if typing_extensions were not installed; who imports that later still finds it."""
    if "msgspec" in sys.modules or "typing_extensions" in sys.modules:
        return
    _parts_later()
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]  # so that importing it fails
    try:
        import msgspec as msgspec
    finally:
        del sys.modules["typing_extensions"]


def _parts_later() -> None:
    for name in PARTS:
        sys.modules.setdefault(name, Later(name))
