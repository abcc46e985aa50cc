"""Fixtures for every test: a minirt of its own, and proof that nothing is left behind."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests import isolation, leaks, requirements

PRIVILEGED = os.geteuid() == 0


def pytest_configure(config: pytest.Config) -> None:
    if PRIVILEGED and not config.option.collectonly and not config.option.help:
        isolation.enter()
    os.environ["MINIRT_CGROUP"] = f"minirt-test-{os.getpid()}"
    os.environ["MINIRT_STATE"] = tempfile.mkdtemp(prefix="minirt-test-", dir="/run" if PRIVILEGED else None)
    os.environ["MINIRT_ROOT"] = tempfile.mkdtemp(prefix="minirt-test-")
    config.add_cleanup(lambda: [shutil.rmtree(os.environ[name]) for name in ("MINIRT_ROOT", "MINIRT_STATE")])


def pytest_runtest_setup(item: pytest.Item) -> None:
    requirements.skip_unless_met(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        _fail_if_promised(report, set(requirements.needs(item)))
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
    kinds = leaks.KINDS if PRIVILEGED else leaks.UNPRIVILEGED
    before = leaks.look(kinds)
    yield
    if found := leaks.leaks_since(before, kinds):
        pytest.fail("the test left behind:\n  " + "\n  ".join(found), pytrace=False)
