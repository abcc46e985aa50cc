"""How msgspec is imported: without what it would like to have at hand, and minirt never uses.

msgspec takes ``get_type_hints`` from typing_extensions where that is installed (gRPC brings it), else from typing,
which does as well from Python 3.11 on: 13 ms and 1.6 MB that every fork of the zygote copies. It also looks up the
types of UUIDs, decimals and dates, to know them when it meets one. None is in a manifest, a spec or a state file of
ours, so it is shown stand-ins: another 5 ms. Who imports those modules later gets the real ones.
"""

import sys
import types

ABSENT = ("typing_extensions",)
STAND_INS = {"uuid": ("UUID", "SafeUUID"), "decimal": ("Decimal",)}
"""Modules that msgspec wants a class or two of."""


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
    return {name: module for name, module in shown.items() if name not in sys.modules}
