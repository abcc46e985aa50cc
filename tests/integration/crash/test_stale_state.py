"""State files that no living process stands behind: of another boot, cut short, empty, or missing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from minirt import paths
from minirt.engine import store
from tests import leaks
from tests.integration.crash.lab import KINDS, POD, Lab
from tests.integration.crash.test_killed import kill, worker
from tests.peers.daemon import await_true

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
    *("containers/*/config.json", "workers/*.json", "names/*", "network/bridge.lock"),
    *("sandboxes/*/hosts", "snapshots/containers/*/layers.json"),
)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A pod of two sleeping containers, named pod."""
    file = tmp_path / "pod.yaml"
    file.write_text((POD % "false").replace('["true"]', '["sleep", "60"]').replace("name: web", "name: pod"))
    return file


@pytest.fixture
def there(lab: Lab, manifest: Path) -> set[str]:
    """The files and directories that stay when nothing is left."""
    lab.output(*RUN)
    lab.output("pod", "run", "-d", manifest)
    assert lab.tidy_up() == []
    return lab.files()


def test_another_boots_state_is_swept(lab: Lab, manifest: Path, there: set[str]) -> None:
    """Nothing of it is listed, its names are free, and prune removes it."""
    lab.output(*RUN)
    lab.output("pod", "run", "-d", manifest)
    lab.output("stop", "-t0", "web")
    lab.output("pod", "stop", "pod")
    await_true(lambda: all(one.state == "stopped" for one in store.sandboxes()), "what follows the end")
    for file in map(Path, lab.files() - there):
        if file.is_file() and not file.is_symlink():
            file.write_text(file.read_text().replace(paths.boot_id(), "another-boot"))
    assert lab.output("ps", "-aq") == ""
    assert lab.output("pod", "ps", "-q") == ""
    assert "there is no container of this name" in lab("inspect", "web").output
    lab.output("run", "--rm", "--name", "web", "localhost/busybox", "true")
    assert "of another boot" in lab.output("system", "prune")
    assert lab.files() == there


@pytest.mark.parametrize("pattern", FILES)
def test_a_damaged_file(lab: Lab, manifest: Path, there: set[str], pattern: str) -> None:
    """Who looks is told what there is, without a traceback; and all of it can be removed."""
    seen = leaks.look(KINDS)
    wrong = []
    for damage, spoil in DAMAGES.items():
        lab.output(*RUN)
        lab.output("pod", "run", "-d", manifest)
        kill(worker())  # it would put right what it can, sooner or later
        found = [path for top in (paths.state_root(), paths.data_root()) for path in top.glob(pattern)]
        assert found
        for file in found:
            spoil(file) if file.is_file() else file.unlink()
        answers = [(look, lab(*look.split())) for look in LOOKS]
        told = [f"{look}: {done.output}" for look, done in answers if "Traceback" in done.output]
        told += [f"{look}: {done}" for look, done in answers if done.code and "minirt: cannot " not in done.output]
        if told := [*told, *lab.tidy_up(), *lab.remains(seen, there)]:
            wrong += [f"{pattern} is {damage}:", *told]
    assert not wrong, "\n".join(wrong)


def test_what_is_no_state_at_all(lab: Lab, there: set[str]) -> None:
    """Directories that are empty, records that are half written, a name that nobody could have taken."""
    state = paths.state_root()
    for kind in ("sandboxes", "containers"):
        (state / kind / "empty").mkdir()
        (state / kind / ".being-made.99999999").mkdir()
    for name in ("workers/.0123.json.99999999", "workers/0123.json", "network/.10.77.0.9"):
        (state / name).touch()
    (state / "names/odd").symlink_to("../../etc:1:1")
    for look in ("ps -a", "pod ps", "pod inspect empty", "inspect empty", "rm empty", "pod rm -f empty"):
        assert "Traceback" not in lab(*look.split()).output
    lab.output("run", "--rm", "--name", "odd", "localhost/busybox", "true")
    lab.output("system", "prune")
    assert lab.files() == there
