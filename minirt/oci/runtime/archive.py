"""The modules that a start of ``minirt-oci`` imports, in one file.

    <package>/__pycache__/start.<tag>     the Python that it is for; of each module: its source file, that file's time
                                          and size, its code (without docstrings and asserts, as with ``python -OO``)

Python looks through four directories for each of a hundred modules, and opens two files: 5 ms of a start's 35.
Here a module is one stat(2) of its source, which has changed or has not. One that has, one that is not in the file, a
file of another Python, or none: Python's own import goes on as ever. ``launcher`` writes it.

Source: https://docs.python.org/3/reference/import.html, "The meta path"
"""

import marshal
import os
import sys

TYPE_CHECKING = False  # typing itself is one of the modules
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

Entry = tuple[str, int, int, "list[str] | None", bytes]
"""A module: its source file, that file's mtime in ns and size in bytes, where a package looks for modules, its code."""


def here() -> str:
    """Return the archive of this installation, for Pythons like this one."""
    return f"{os.path.dirname(__file__)}/__pycache__/start.{sys.implementation.cache_tag}"


def python() -> tuple[str, str]:
    """Return what must be the same for an archive to be of use: the version and where it is installed."""
    return sys.version, sys.prefix


class Archive:
    """Finds and loads modules from the file, for ``sys.meta_path``."""

    def __init__(self, modules: dict[str, Entry]) -> None:
        self._modules = modules

    def find_spec(self, name: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        """Return a module's spec; None where its source is not what it was, or not known."""
        if name not in self._modules:
            return None
        source, changed_ns, size, places, _ = self._modules[name]
        try:
            found = os.stat(source)
        except OSError:
            return None
        if (found.st_mtime_ns, found.st_size) != (changed_ns, size):
            return None
        spec = type(sys.__spec__)(name, self, origin=source, is_package=places is not None)  # type: ignore[arg-type]
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations += places or []
        return spec

    def create_module(self, spec: "ModuleSpec") -> None:
        """Leave it to Python."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run a module's code."""
        source, _, _, _, code = self._modules[module.__name__]
        module.__file__ = source
        exec(marshal.loads(code), module.__dict__)


def install(path: str = "") -> None:
    """Import from the archive (``here``) from now on, if there is one, whole and for this Python."""
    try:
        with open(path or here(), "rb") as file:
            made_by, modules = marshal.load(file)
    except (OSError, ValueError, EOFError, TypeError):
        return
    if made_by == python():
        sys.meta_path.insert(0, Archive(modules))


def write(names: "list[str]", path: str = "") -> None:
    """Write the archive (``here``): of those imported modules that have a source. Raises OSError."""
    modules = {name: entry for name in names if (entry := _entry(name))}
    path = path or here()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.{os.getpid()}", "wb") as file:
        marshal.dump((python(), modules), file)
    os.rename(f"{path}.{os.getpid()}", path)


def _entry(name: str) -> Entry | None:
    from importlib.machinery import SourceFileLoader

    spec = getattr(sys.modules[name], "__spec__", None)
    if spec is None or spec.origin is None or not isinstance(spec.loader, SourceFileLoader):
        return None
    found = os.stat(spec.origin)
    code: CodeType = compile(spec.loader.get_data(spec.origin), spec.origin, "exec", dont_inherit=True, optimize=2)
    places = spec.submodule_search_locations
    return spec.origin, found.st_mtime_ns, found.st_size, None if places is None else list(places), marshal.dumps(code)
