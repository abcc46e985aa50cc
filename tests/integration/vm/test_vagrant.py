"""The Vagrantfile is one, as Debian's vagrant sees it. To boot it takes libvirt or VirtualBox."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

VM = Path(__file__).parents[3] / "vm"


@pytest.mark.skipif(not shutil.which("vagrant"), reason="vagrant: not installed")
def test_the_vagrantfile_is_valid(tmp_path: Path) -> None:
    places = {"HOME": tmp_path, "VAGRANT_HOME": tmp_path / "home", "VAGRANT_DOTFILE_PATH": tmp_path / "dot"}
    asked = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=VM,
        env={**os.environ, **{name: str(path) for name, path in places.items()}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr
