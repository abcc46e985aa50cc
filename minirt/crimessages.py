"""The one door to the CRI's message types (runtime.v1), without gRPC.

The package that holds them imports grpc in its ``__init__`` (about 80 ms). The in-process path needs only the
messages, so the message module is loaded from its file, under its own name, and its packages' ``__init__`` never run.
Protobuf itself imports its implementation in Python also where the one in C is used (9 ms): it is shown a stand-in.
"""

import importlib.util
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cri_api.v1 import api_pb2 as api_pb2
else:
    from pathlib import Path
    from types import ModuleType

    def _load() -> ModuleType:
        """Load cri_api.v1.api_pb2, or take it from sys.modules where gRPC's side has loaded it already."""
        name = "cri_api.v1.api_pb2"
        if name in sys.modules:
            return sys.modules[name]
        package = importlib.util.find_spec("cri_api")
        root = Path(package.submodule_search_locations[0])
        _bare_package("cri_api", root)
        _bare_package("cri_api.v1", root / "v1")
        spec = importlib.util.spec_from_file_location(name, root / "v1" / "api_pb2.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        unused = "google.protobuf.internal.python_message"
        shown = {unused: ModuleType(unused)} if _is_in_c() and unused not in sys.modules else {}
        sys.modules.update(shown)
        try:
            spec.loader.exec_module(module)
        finally:
            for one in shown:
                del sys.modules[one]
        return module

    def _is_in_c() -> bool:
        from google.protobuf.internal import api_implementation

        return api_implementation.Type() == "upb"

    def _bare_package(name: str, path: Path) -> None:
        if name not in sys.modules:
            package = ModuleType(name)
            package.__path__ = [str(path)]
            sys.modules[name] = package

    api_pb2 = _load()

__all__ = ["api_pb2"]
