import os
import subprocess
import sys
from pathlib import Path

import pytest

from minirt import launcher
from minirt.errors import InvalidInput


def test_finds_the_packages_that_minirt_oci_needs() -> None:
    found = launcher.directories_of(launcher.COMMANDS["minirt-oci"].packages)
    assert str(Path(launcher.__file__).parents[1]) in found
    assert len(found) == len(set(found))


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(ImportError, match="no_such_package is not installed"):
        launcher.directories_of(["no_such_package"])


@pytest.mark.parametrize("python", ["/opt/my python/bin/python3", "/" + "x" * 260])
def test_refuses_an_interpreter_that_no_script_can_name(python: str) -> None:
    with pytest.raises(InvalidInput, match="first line of a script"):
        launcher.script("minirt-oci", python, [])


@pytest.mark.parametrize("name", ["minirt-oci", "crun"])
def test_runs_by_any_name_anywhere_with_no_environment(tmp_path: Path, name: str) -> None:
    launcher.write("minirt-oci", tmp_path / name)
    (tmp_path / "link").symlink_to(name)
    for called in (name, "link"):
        done = subprocess.run([tmp_path / called, "--version"], cwd="/", env={}, capture_output=True, check=True)
        assert done.stdout.startswith(b"minirt-oci version")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_heeds_nothing_of_pythons_environment(tmp_path: Path) -> None:
    launcher.write("minirt-oci", tmp_path / "minirt-oci")
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "json.py")}
    done = subprocess.run(
        [tmp_path / "minirt-oci", "state", "none"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert b"imported" not in done.stderr
    assert done.returncode == 1
    assert sys.executable in (tmp_path / "minirt-oci").read_text()
