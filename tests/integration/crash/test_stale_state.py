"""State files that no living process stands behind: of another boot, cut short, empty, or missing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from minirt import paths
from tests import leaks
from tests.integration.crash.lab import KINDS, POD, Lab

pytestmark = [pytest.mark.root, pytest.mark.needs("cgroup2_tree", "nft", "busybox")]

RUN = ("run", "-d", "--name", "web", "localhost/busybox", "sleep", "60")
LOOKS = (
    *("ps", "ps -a", "ps -aq", "inspect web", "logs web", "exec web true", "explain container web"),
    *("pod ps", "pod ps -q", "pod inspect pod", "pod logs pod", "pod exec pod true", "explain pod pod"),
)
DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "not JSON": lambda path: path.write_bytes(b"\xff\0}"),
    "other JSON": lambda path: path.write_bytes(b"[1]"),
    "gone": lambda path: path.unlink(),
}
FILES = (
    *("sandboxes/*/sandbox.json", "containers/*/container.json", "containers/*/status.json"),
    *("containers/*/config.json", "workers/*.json", "names/web", "network/10.*", "network/bridge.lock"),
    *("sandboxes/*/hosts", "sandboxes/*/lock", "sandboxes/*/shim.sock"),
)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A pod of two sleeping containers, named pod."""
    file = tmp_path / "pod.yaml"
    file.write_text((POD % "false").replace('["true"]', '["sleep", "60"]').replace("name: web", "name: pod"))
    return file


def test_another_boots_state_is_swept(lab: Lab, manifest: Path) -> None:
    """Nothing of it is listed, its names are free, and prune removes it."""
    lab.output("run", "--rm", "localhost/busybox", "true")
    there = lab.files()
    lab.output(*RUN)
    lab.output("pod", "run", "-d", manifest)
    lab.output("stop", "-t0", "web")
    lab.output("pod", "stop", "pod")
    for file in lab.files() - there:
        if file.endswith(".json") and not Path(file).is_symlink():
            text = Path(file).read_text()
            Path(file).write_text(text.replace(paths.boot_id(), "another-boot"))
    assert lab.output("ps", "-aq") == ""
    assert lab.output("pod", "ps", "-q") == ""
    assert "there is no container of this name" in lab("inspect", "web").output
    lab.output("run", "--rm", "--name", "web", "localhost/busybox", "true")
    assert "of another boot" in lab.output("system", "prune")
    assert lab.files() == there


@pytest.mark.parametrize("pattern", FILES)
def test_a_damaged_file(lab: Lab, manifest: Path, pattern: str) -> None:
    """Who looks is told what there is, without a traceback; and all of it can be removed."""
    lab.output("run", "--rm", "localhost/busybox", "true")
    seen, there = leaks.look(KINDS), lab.files()
    wrong = []
    for damage, spoil in DAMAGES.items():
        lab.output(*RUN)
        lab.output("pod", "run", "-d", "--backoff-cap", "0.1", manifest)
        found = list(paths.state_root().glob(pattern))
        assert found
        for file in found:
            spoil(file) if file.is_file() and not file.is_symlink() else file.unlink()
        answers = [(look, lab(*look.split())) for look in LOOKS]
        told = [f"{look}: {done.output}" for look, done in answers if "Traceback" in done.output]
        told += [f"{look}: {done}" for look, done in answers if done.code and "minirt: cannot " not in done.output]
        if told := [*told, *lab.tidy_up(), *lab.remains(seen, there)]:
            wrong += [f"{pattern} is {damage}:", *told]
    assert not wrong, "\n".join(wrong)
