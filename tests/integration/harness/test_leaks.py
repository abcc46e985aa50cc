"""The leak fixture names what a test leaves, ends it, and leaves a clean test alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import leaks

REPOSITORY = Path(__file__).parents[3]
HEAD = """import os, pathlib, subprocess, pytest
from tests import leaks
leaks.GRACE_S = 0.5
held = []
"""


def run(tmp_path: Path, body: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest, with this project's conftest, on a file of these tests."""
    file = tmp_path / "test_it.py"
    file.write_text(HEAD + body)
    options = ["-p", "tests.conftest", "-c", str(REPOSITORY / "pyproject.toml"), "--rootdir", str(tmp_path)]
    options += ["--basetemp", str(tmp_path / "its-own")]
    # Under CI, pytest would tell each error twice, the second time at length.
    inherited = {name: value for name, value in os.environ.items() if name not in {"CI", "BUILD_NUMBER"}}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(file)],
        cwd=REPOSITORY,
        env=inherited | {"MINIRT_REQUIRE": ""} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


LEAKS = {
    "process": "subprocess.run(['setsid', '-f', 'sleep', '4711'], check=True)",
    "mount": "subprocess.run(['mount', '-t', 'tmpfs', 'none', str(tmp_path)], check=True)",
    "network link": "subprocess.run(['ip', 'link', 'add', 'left0', 'type', 'bridge'], check=True)",
    "nftables rule": "subprocess.run(['nft', 'add', 'table', 'ip', 'left'], check=True)",
    "descriptor": "held.append(os.open('/dev/null', os.O_RDONLY))",
    "state file": "pathlib.Path(os.environ['MINIRT_STATE'], 'left').touch()",
}


@pytest.mark.root
def test_each_leak_is_named_and_ended(tmp_path: Path) -> None:
    """Each body's test passes and its teardown fails, naming just what that body left."""
    tests = [f"def test_{n}(tmp_path):\n    {leave}\n" for n, leave in enumerate(LEAKS.values())]
    done = run(tmp_path, "".join(tests) + "def test_is_clean(): pass\n")
    named = {line.strip().partition(":")[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert named == set(LEAKS), done.stdout
    assert f"{len(LEAKS) + 1} passed, {len(LEAKS)} errors" in done.stdout
    assert "sleep 4711" not in running()


@pytest.mark.root
@pytest.mark.needs("cgroup2_tree")
def test_a_cgroup_is_named_and_ended(tmp_path: Path) -> None:
    make = "leaks.cgroup2_tops()[0].joinpath(os.environ['MINIRT_CGROUP'], 'below').mkdir(parents=True)"
    done = run(tmp_path, f"def test_leaks():\n    {make}\ndef test_is_clean(): pass\n")
    assert done.stdout.count("\n  cgroup: ") == 1, done.stdout
    assert "2 passed, 1 error" in done.stdout


@pytest.mark.root
def test_what_ends_by_itself_is_no_leak(tmp_path: Path) -> None:
    body = "def test_it():\n    subprocess.run(['setsid', '-f', 'sleep', '0.1'], check=True)\n"
    assert "1 passed" in run(tmp_path, body).stdout


@pytest.mark.root
def test_what_a_file_of_tests_leaves_is_named_at_the_end(tmp_path: Path) -> None:
    fixture = f"@pytest.fixture(scope='module', autouse=True)\ndef kept(): {LEAKS['process']}\n"
    done = run(tmp_path, fixture + "def test_it(): pass\n")
    assert "the session left behind:\n  process: " in done.stdout, done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


@pytest.mark.root
def test_nothing_survives_the_session(tmp_path: Path) -> None:
    """A session that is killed runs no fixture's end: its reaper ends what it started, and removes its places."""
    told = tmp_path / "told"
    body = f"""def test_it():
    pathlib.Path({str(told)!r}).write_text(os.environ['MINIRT_ROOT'])
    subprocess.run(['mount', '-t', 'tmpfs', 'none', os.environ['MINIRT_ROOT']], check=True)
    {LEAKS["process"]}
    os.kill(os.getpid(), 9)
"""
    assert run(tmp_path, body).returncode == 128 + 9
    assert "sleep 4711" not in running()
    assert not Path(told.read_text()).exists()


@pytest.mark.root
def test_the_machine_is_out_of_reach() -> None:
    of_the_machine = set(os.listdir("/sys/class/net")) - {"lo"}
    assert not of_the_machine & set(leaks.links())
    assert not Path("/run/docker.sock").exists()


def test_a_required_thing_that_is_missing_is_a_failure(tmp_path: Path) -> None:
    body = "@pytest.mark.needs('strace')\ndef test_it(): pass\n"
    hidden = {"PATH": str(tmp_path)}
    assert "1 skipped" in run(tmp_path, body, **hidden).stdout
    done = run(tmp_path, body, MINIRT_REQUIRE="strace", **hidden)
    assert "MINIRT_REQUIRE=strace, and yet: strace: not installed" in done.stdout
    assert "1 error" in done.stdout


def test_a_skip_of_the_tests_own_is_a_failure_too_where_it_names_what_is_required(tmp_path: Path) -> None:
    body = "def test_it(): pytest.skip('overlayfs: this kernel has none')\n"
    assert "1 failed" in run(tmp_path, body, MINIRT_REQUIRE="overlayfs").stdout
    assert "1 skipped" in run(tmp_path, body, MINIRT_REQUIRE="crun").stdout


def running() -> str:
    return subprocess.run(["ps", "axo", "args"], capture_output=True, text=True, check=True).stdout
