"""The modules that a start imports, in one file.

    <package>/__pycache__/<command>.<tag>     length of the table ─ table ─ code ─ code ─ …
    the table       the Python that it is for; of each module: its source, that file's time and size, where its code is

Python looks through four directories for each of a hundred modules or three, and opens two files: 5 ms of the 35 that
``minirt-oci`` takes. Here a module is a stat(2) of its source, which has changed or has not, and one read. One that
has, one that is not in the table, a file of another Python, or none: Python's own import goes on as ever. The code has
no docstrings and no asserts, as with ``python -OO``. ``launcher`` writes it.

Source: https://docs.python.org/3/reference/import.html, "The meta path"
"""

import marshal
import os
import sys

TYPE_CHECKING = False  # typing itself is one of the modules
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

Entry = tuple[str, int, int, "list[str] | None", int, int]
"""A module: its source file, that file's mtime in ns and size in bytes, where a package looks for modules; where its
mark and code begin, counted from the end of the table, and how long they are, in bytes."""

NUMBER_BYTES = 8
MOST_BYTES = 1 << 20
"""No table is longer."""


def place_of(name: str) -> str:
    """Return the archive of a command in this installation, for Pythons like this one."""
    return f"{os.path.dirname(__file__)}/__pycache__/{name}.{sys.implementation.cache_tag}"


def python() -> tuple[str, str]:
    """Return what must be the same for an archive to be of use: the version and where it is installed."""
    return sys.version, sys.prefix


class Archive:
    """Finds and loads modules from the file, for ``sys.meta_path``.

    The file is opened for each of them: a descriptor that is kept would be closed by whoever cleans up after a fork.
    ``mark`` stands before each code, for another archive may have taken the place of this one.
    """

    def __init__(self, path: str, base: int, mark: bytes, table: dict[str, Entry]) -> None:
        self._path = path
        self._base = base
        self._mark = mark
        self._table = table

    def find_spec(self, name: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        """Return a module's spec; None where its source is not what it was, or not known."""
        if name not in self._table:
            return None
        source, changed_ns, size, places, begin, length = self._table[name]
        try:
            found = os.stat(source)
            code = self._read(begin, length)
        except OSError:
            return None
        is_whole = len(code) == length and code.startswith(self._mark)
        if not is_whole or (found.st_mtime_ns, found.st_size) != (changed_ns, size):
            return None
        spec = type(sys.__spec__)(name, self, origin=source, is_package=places is not None)  # type: ignore[arg-type]
        spec.loader_state = code
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations += places or []
        return spec

    def _read(self, begin: int, length: int) -> bytes:
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, length, self._base + begin)
        finally:
            os.close(fd)

    def create_module(self, spec: "ModuleSpec") -> None:
        """Leave it to Python."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run a module's code."""
        spec = module.__spec__
        assert spec
        code, spec.loader_state = marshal.loads(memoryview(spec.loader_state)[len(self._mark) :]), None
        module.__file__ = spec.origin
        exec(code, module.__dict__)


def install(name: str, path: str = "") -> None:
    """Import from a command's archive (``place_of``) from now on, if there is one, whole and for this Python."""
    path = path or place_of(name)
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(NUMBER_BYTES), "little")
            made_by, mark, table = marshal.loads(file.read(min(length, MOST_BYTES)))
    except (OSError, ValueError, EOFError, TypeError):
        return
    if made_by == python():
        sys.meta_path.insert(0, Archive(path, NUMBER_BYTES + length, mark, table))


def write(name: str, modules: "list[str]", path: str = "") -> None:
    """Write a command's archive (``place_of``): of those imported modules that have a source. Raises OSError."""
    path = path or place_of(name)
    mark = os.urandom(NUMBER_BYTES)
    table: dict[str, Entry] = {}
    codes = b""
    for module in modules:
        if found := _collected(module):
            about, code = found
            table[module] = (*about, len(codes), len(mark) + len(code))
            codes += mark + code
    content = marshal.dumps((python(), mark, table))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.{os.getpid()}", "wb") as file:
        file.write(len(content).to_bytes(NUMBER_BYTES, "little") + content + codes)
    os.rename(f"{path}.{os.getpid()}", path)


def _collected(module: str) -> "tuple[tuple[str, int, int, list[str] | None], bytes] | None":
    """Return what the table tells of a module's source, and its code; None for one without a source."""
    from importlib.machinery import SourceFileLoader

    spec = getattr(sys.modules[module], "__spec__", None)
    if spec is None or spec.origin is None or not isinstance(spec.loader, SourceFileLoader):
        return None
    found = os.stat(spec.origin)
    code: CodeType = compile(spec.loader.get_data(spec.origin), spec.origin, "exec", dont_inherit=True, optimize=2)
    places = spec.submodule_search_locations
    about = (spec.origin, found.st_mtime_ns, found.st_size, None if places is None else list(places))
    return about, marshal.dumps(code)
