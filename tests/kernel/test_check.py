"""``minirt system check`` against this kernel. The fixture for leaks sees to it that probes leave nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minirt.cgroups import tree
from minirt.engine.check import Finding, check, is_enough
from minirt.engine.check import _in_child as in_child
from minirt.engine.probes import Probe, probes

COMMAND = [sys.executable, "-c", "from minirt.cli.system import system; system()", "check"]
READ_ANYTHING = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *READ_ANYTHING]
"""An ordinary user, but for reading a Python that may be installed where only root looks."""


@pytest.mark.root
def test_every_probe_says_what_is_there() -> None:
    findings = {finding.name: finding for finding in check()}
    assert len(findings) == len(list(probes()))
    assert not [finding for finding in findings.values() if "bug" in finding.do]
    for name in ("root", "system calls", "file systems", "pid namespace", "cgroup v2", "cgroup.kill"):
        assert findings[name].status == "ok", findings[name]
    offered = tree.find().controllers()
    for name in ("cpu", "memory", "pids"):
        finding = findings[f"cgroup v2 {name}"]
        assert (finding.status == "ok") == (name in offered)
        assert finding.do or finding.status == "ok"


@pytest.mark.root
def test_the_command_tells_the_same_as_json_and_by_its_status() -> None:
    done = subprocess.run([*COMMAND, "--json"], capture_output=True, text=True, check=False)
    findings = [Finding(**one) for one in json.loads(done.stdout)]
    assert done.returncode == (0 if is_enough(findings) else 1)
    assert done.stderr == ""


@pytest.mark.root
def test_a_user_is_told_to_be_root() -> None:
    done = subprocess.run([*AS_NOBODY, *COMMAND], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    first = done.stdout.splitlines()[0]
    assert first.startswith("root ")
    assert "missing" in first
    assert "sudo" in first
    assert "bug" not in done.stdout
    assert "bridge             missing  Operation not permitted (run it with sudo)" in done.stdout.splitlines()


def finding_of(look) -> Finding:
    return in_child(Probe("it", look, "do this"))


def test_a_probe_that_raises_is_missing_and_says_what_to_do() -> None:
    def look() -> str:
        raise OSError(19, "No such device", "overlay")

    assert finding_of(look) == Finding("it", "missing", True, "overlay: No such device", "do this")


def test_a_probe_that_dies_or_is_wrong_is_missing_too() -> None:
    assert finding_of(lambda: os.kill(os.getpid(), 9)).status == "missing"
    assert "bug" in finding_of(lambda: 1 / 0).do


def test_a_probe_changes_only_its_child(tmp_path: Path) -> None:
    before = os.getcwd()
    assert finding_of(lambda: os.chdir(tmp_path) or os.getcwd()).detail == str(tmp_path)
    assert os.getcwd() == before


def test_only_what_is_needed_and_missing_is_not_enough() -> None:
    fine, less = Finding("a", "ok", True, ""), Finding("b", "limited", True, "")
    unneeded, needed = Finding("c", "missing", False, ""), Finding("d", "missing", True, "")
    assert is_enough([fine, less, unneeded])
    assert not is_enough([fine, needed])
