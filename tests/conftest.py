"""Fixtures for every test: a minirt of its own, and proof that nothing is left behind."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import isolation, leaks, requirements
from tests.command import COMMAND, Minirt
from tests.peers.daemon import remove_cgroups

pytest_plugins = ["tests.peers.fixtures"]
REPOSITORY = Path(__file__).parents[1]
PRIVILEGED = os.geteuid() == 0
KINDS = leaks.KINDS if PRIVILEGED else leaks.UNPRIVILEGED
AT_START = pytest.StashKey[leaks.Look]()


def pytest_configure(config: pytest.Config) -> None:
    isolated = PRIVILEGED and not config.option.collectonly and not config.option.help
    if isolated:
        isolation.enter()
    os.environ["MINIRT_CGROUP"] = f"minirt-test-{os.getpid()}"
    os.environ["MINIRT_STATE"] = tempfile.mkdtemp(prefix="minirt-test-", dir="/run" if isolated else None)
    os.environ["MINIRT_ROOT"] = tempfile.mkdtemp(prefix="minirt-test-")
    if isolated:
        isolation.leave_a_reaper(_remove_places)
    else:
        config.add_cleanup(_remove_places)


def _remove_places() -> None:
    for top in leaks.cgroup_tops():
        leaks.remove_cgroups(top)
    remove_cgroups(os.environ["MINIRT_CGROUP"])
    for name in ("MINIRT_STATE", "MINIRT_ROOT"):
        leaks.unmount_below(Path(os.environ[name]))
        shutil.rmtree(os.environ[name])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put those last that leave threads in this process, as gRPC's channels do: who has threads never forks."""
    late = (REPOSITORY / "tests/contract", REPOSITORY / "tests/contract/cri")
    items.sort(key=lambda item: sum(item.path.is_relative_to(directory) for directory in late))


def pytest_sessionstart(session: pytest.Session) -> None:
    session.stash[AT_START] = leaks.look(KINDS)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Look once more when the fixtures of whole files and of the session are gone too."""
    if found := leaks.leaks_since(session.stash[AT_START], KINDS):
        print("\nthe session left behind:\n  " + "\n  ".join(found))
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Any:
    """Have a short temporary directory, and end though a test has left a thread that never will.

    The interpreter would wait for that thread for ever. And pytest's own directories are numbered: from the thousandth
    session on the paths of a peer's sockets would be too long. It stays where a test has failed, to be looked at.
    """
    own = "" if config.option.basetemp else tempfile.mkdtemp(prefix="minirt-")
    config.option.basetemp = config.option.basetemp or own
    status = yield
    if own and status == pytest.ExitCode.OK:
        shutil.rmtree(own, ignore_errors=True)
    if len(leaks.threads()) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def pytest_runtest_setup(item: pytest.Item) -> None:
    requirements.skip_unless_met(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        _fail_if_promised(report, set(requirements.by_marker(item)) - {"root"})
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        _fail_if_promised(report, set())
    return report


def _fail_if_promised(report: pytest.TestReport | pytest.CollectReport, names: set[str]) -> None:
    reason = report.longrepr[2].removeprefix("Skipped: ")
    if said := requirements.broken_promise(reason, names):
        report.outcome = "failed"
        report.longrepr = said


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves something behind, naming it; then end it, so that the next one starts clean."""
    before = leaks.look(KINDS)
    yield
    if found := leaks.leaks_since(before, KINDS):
        pytest.fail("the test left behind:\n  " + "\n  ".join(found), pytrace=False)


@pytest.fixture
def minirt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Minirt:
    """A minirt of this test's own, to be called as a command; MINIRT_* of the test's own process name it too."""
    own = Minirt(tmp_path / "minirt", Path(tempfile.mkdtemp(dir=os.environ["MINIRT_STATE"])))
    monkeypatch.setenv("MINIRT_ROOT", str(own.root))
    monkeypatch.setenv("MINIRT_STATE", str(own.state))
    return own


@pytest.fixture(scope="session")
def busybox_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MINIRT_ROOT that holds the image localhost/busybox and nothing else. Look only: tests copy it."""
    store = Minirt(tmp_path_factory.mktemp("busybox-store"), Path(os.environ["MINIRT_STATE"]))
    subprocess.run([REPOSITORY / "examples/busybox-image.sh", COMMAND], env=store.env, check=True, capture_output=True)
    return store.root


@pytest.fixture
def busybox(minirt: Minirt, busybox_store: Path) -> str:
    """The name of an image that this test's minirt has: Debian's static busybox, its applets in /bin."""
    shutil.copytree(busybox_store, minirt.root, symlinks=True, dirs_exist_ok=True)
    return "localhost/busybox"
