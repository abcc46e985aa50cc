"""The archive of modules, each time in a Python of its own that is started as ours are."""

import subprocess
import sys
from pathlib import Path

import pytest

from minirt import launcher

SAYS = "from minirt import archive; archive.install('x', {archive!r}); import one; print(one.said, one.__file__)"
LOADER = "; print(type(one.__spec__.loader).__name__)"


def python(directory: Path, code: str) -> list[str]:
    """Return the lines that Python prints, where modules are found in ``directory`` too."""
    paths = [*launcher.directories_of(["minirt"]), str(directory)]
    command = [sys.executable, "-ISB", "-c", f"import sys; sys.path += {paths}; {code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A module, and an archive of it beside it."""
    (tmp_path / "one.py").write_text("said = 'before'")
    write = f"import one; from minirt import archive; archive.write('x', ['one'], {str(tmp_path / 'kept')!r})"
    python(tmp_path, write)
    return tmp_path / "one.py"


def said(source: Path) -> list[str]:
    return python(source.parent, SAYS.format(archive=str(source.with_name("kept"))) + LOADER)


def test_a_module_comes_from_it(source: Path) -> None:
    assert said(source) == [f"before {source}", "Archive"]


def test_a_changed_module_does_not(source: Path) -> None:
    source.write_text("said = 'after!'")
    assert said(source) == [f"after! {source}", "SourceFileLoader"]


@pytest.mark.parametrize("content", [b"", b"no marshal", None], ids=["empty", "of another kind", "cut"])
def test_one_that_is_damaged_is_as_none(source: Path, content: bytes | None) -> None:
    kept = source.with_name("kept")
    kept.write_bytes(kept.read_bytes()[:-9] if content is None else content)
    assert said(source) == [f"before {source}", "SourceFileLoader"]


def test_one_of_another_python_is_as_none(source: Path) -> None:
    kept = source.with_name("kept")
    kept.write_bytes(kept.read_bytes().replace(sys.version.encode(), b"x" * len(sys.version)))
    assert said(source) == [f"before {source}", "SourceFileLoader"]


def test_where_there_is_none(source: Path) -> None:
    source.with_name("kept").unlink()
    assert said(source) == [f"before {source}", "SourceFileLoader"]


def test_packages_are_packages(tmp_path: Path) -> None:
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "__init__.py").touch()
    (tmp_path / "outer" / "inner.py").write_text("here = __name__, __package__")
    kept = str(tmp_path / "kept")
    write = f"import outer; from minirt import archive; archive.write('x', ['outer'], {kept!r})"
    python(tmp_path, write)
    use = f"from minirt import archive; archive.install('x', {kept!r}); from outer import inner"
    assert python(tmp_path, f"{use}; print(*inner.here)") == ["outer.inner outer"]
