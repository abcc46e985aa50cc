"""How msgspec is imported: without what it would like to have at hand, and minirt never uses.

msgspec takes ``get_type_hints`` from typing_extensions where that is installed (gRPC brings it), else from typing,
which does as well from Python 3.11 on. The one costs 13 ms and 1.6 MB that every fork of the zygote copies.
"""

import sys


def lean_msgspec() -> None:
    """Have msgspec imported so wherever this process does it, and typing_extensions never."""
    sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]  # so that importing it fails


def msgspec_alone() -> None:
    """Import msgspec as if typing_extensions were not installed; who imports that later still finds it."""
    if "msgspec" in sys.modules or "typing_extensions" in sys.modules:
        return
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]  # so that importing it fails
    try:
        import msgspec as msgspec
    finally:
        del sys.modules["typing_extensions"]
