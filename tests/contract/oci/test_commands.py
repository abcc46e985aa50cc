"""Commands and spellings beside a container's life: ``spec``, ``features``, flags in each of their forms."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.contract.oci.container import Container
from tests.peers.oci import Runtime

pytestmark = [pytest.mark.root, pytest.mark.peer]


@pytest.fixture
def spec(runtime: Runtime, tmp_path: Path) -> dict[str, Any]:
    """What ``spec`` writes."""
    (tmp_path / "new").mkdir()
    done = runtime("spec", "--bundle", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "new/config.json").read_text())  # type: ignore[no-any-return]


def test_spec_is_for_a_shell_at_a_terminal(spec: dict[str, Any]) -> None:
    assert (spec["process"]["args"], spec["process"]["terminal"], spec["process"]["cwd"]) == (["sh"], True, "/")
    assert spec["ociVersion"].startswith("1.")


def test_spec_has_the_namespaces_of_a_container(spec: dict[str, Any]) -> None:
    kinds = {one["type"] for one in spec["linux"]["namespaces"]}
    assert {"pid", "network", "ipc", "uts", "mount"} <= kinds


def test_spec_has_the_mounts_of_a_container(spec: dict[str, Any]) -> None:
    points = {one["destination"] for one in spec["mounts"]}
    assert {"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys"} <= points


def test_spec_has_a_root_below_the_bundle(spec: dict[str, Any]) -> None:
    assert spec["root"] == {"path": "rootfs", "readonly": True}


def test_spec_has_no_new_privileges(spec: dict[str, Any]) -> None:
    assert spec["process"]["noNewPrivileges"] is True


def test_spec_masks_and_guards(spec: dict[str, Any]) -> None:
    assert "/proc/kcore" in spec["linux"]["maskedPaths"]
    assert "/proc/sys" in spec["linux"]["readonlyPaths"]


def test_spec_does_not_overwrite(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    assert runtime("spec", "--bundle", tmp_path).returncode != 0
    assert (tmp_path / "config.json").read_text() == "mine"


def test_spec_goes_to_the_current_directory(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert runtime("spec").returncode == 0
    assert (tmp_path / "config.json").exists()


def test_spec_can_be_run(container: Container, spec: dict[str, Any], root: Path) -> None:
    spec["process"] |= {"terminal": False, "args": ["echo", "made by spec"]}
    spec["root"]["path"] = str(root)
    spec["process"].pop("rlimits", None)
    spec["linux"].pop("resources", None)
    spec["mounts"] = [one for one in spec["mounts"] if not one["type"].startswith("cgroup")]
    spec["linux"]["cgroupsPath"] = container.linux["cgroupsPath"]
    container.config = spec
    assert container.run().stdout == "made by spec\n"


def test_features(runtime: Runtime) -> None:
    """Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/features.md"""
    done = runtime("features")
    if "unknown command" in done.stderr:
        pytest.skip("features: this runtime has none")
    said = json.loads(done.stdout)
    assert said["ociVersionMin"].startswith("1.")
    assert {"bind", "rbind", "ro"} <= set(said["mountOptions"])
    assert {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"} <= set(
        said["hooks"]
    )
    assert {"pid", "network", "ipc", "uts", "mount", "cgroup"} <= set(said["linux"]["namespaces"])
    assert "CAP_CHOWN" in said["linux"]["capabilities"]
    assert said["linux"]["seccomp"]["enabled"] is True


@pytest.mark.parametrize(
    "words",
    [
        ("--bundle", "{bundle}", "--pid-file", "{pid}"),
        ("--bundle={bundle}", "--pid-file={pid}"),
        ("-b", "{bundle}", "--pid-file", "{pid}"),
        ("--pid-file", "{pid}", "-b", "{bundle}"),
    ],
    ids=["apart", "together", "short", "another-order"],
)
def test_how_options_are_written(container: Container, words: tuple[str, ...]) -> None:
    container.write()
    known = {"bundle": container.bundle, "pid": container.pid_file}
    done = container.runtime.detached("create", *(word.format(**known) for word in words), container.name)
    assert done.returncode == 0, done.stderr
    assert container.state()["pid"] == container.pid


@pytest.mark.parametrize("option", ["--no-pivot", "--no-new-keyring"])
def test_options_that_callers_add(container: Container, option: str) -> None:
    container.create(option).start()
    assert container.status() == "running"


@pytest.mark.parametrize(
    "word",
    [
        "--debug",
        pytest.param("--systemd-cgroup=false", marks=pytest.mark.differs("crun", "1.8 takes no value there")),
        pytest.param("--rootless=false", marks=pytest.mark.differs("crun", "1.8 forgets --root", run=False)),
        pytest.param("--rootless=auto", marks=pytest.mark.differs("crun", "1.8 forgets --root", run=False)),
    ],
)
def test_global_options_that_callers_add(container: Container, word: str) -> None:
    container.write()
    done = container.runtime.detached(word, "create", "--bundle", container.bundle, container.name)
    assert done.returncode == 0, done.stderr
    assert container.status() == "created"


@pytest.mark.parametrize("option", ["-f", "--force"])
def test_delete_by_force_in_both_spellings(running: Container, option: str) -> None:
    assert running.runtime("delete", option, running.name).returncode == 0
    assert not running.exists


@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_list_of_names_in_both_spellings(running: Container, option: str) -> None:
    assert running.runtime("list", option).stdout == f"{running.name}\n"


@pytest.mark.parametrize("option", [("-f", "json"), ("--format", "json"), ("--format=json",)])
def test_a_format_in_all_spellings(running: Container, option: tuple[str, ...]) -> None:
    assert json.loads(running.runtime("list", *option).stdout)[0]["id"] == running.name
    assert json.loads(running.runtime("ps", *option, running.name).stdout) == [running.pid]
