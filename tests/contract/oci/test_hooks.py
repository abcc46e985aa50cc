"""The six kinds of hook: when, where, in which order, with what, and what comes of a failure.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md#posix-platform-hooks
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.contract.oci.container import Container
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer]

AT_CREATE = ("prestart", "createRuntime", "createContainer")
AT_START = ("startContainer", "poststart")
LATE = pytest.mark.differs("crun", "1.8 ends start before startContainer hooks have run")
EARLY = pytest.mark.differs("runc", "1.1 runs poststart hooks at the end of create")
KINDS = (*AT_CREATE, *AT_START, "poststop")


@pytest.fixture
def notes(tmp_path: Path, container: Container) -> Path:
    """A directory that hooks write to, at the same path in the container as on the host."""
    (tmp_path / "notes").mkdir()
    container.mount(str(tmp_path / "notes"), "bind", tmp_path / "notes", "bind")
    return tmp_path / "notes"


def hook(container: Container, kind: str, script: str, **more: Any) -> None:
    """Add a hook that is a shell's script; what it is given on stdin is in $state."""
    script = f"state=$(cat); {script}"
    one = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], **more}
    container.config.setdefault("hooks", {}).setdefault(kind, []).append(one)


def started(container: Container) -> Container:
    """Create, start, and wait until the program is executed."""
    container.create().start()
    await_true(container.is_executed, "the program's exec")
    return container


def live(container: Container) -> None:
    """Create, start, end and delete."""
    started(container).stop()
    assert container("delete").returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_is_run(container: Container, notes: Path, kind: str) -> None:
    hook(container, kind, f"echo ran >{notes}/{kind}")
    live(container)
    await_true((notes / kind).exists, "the hook")
    assert (notes / kind).read_text() == "ran\n"


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        *[(kind, "", "create") for kind in AT_CREATE],
        pytest.param("startContainer", "create", "start", marks=LATE),
        pytest.param("poststart", "create", "start", marks=EARLY),
        ("poststop", "stop", "delete"),
    ],
)
def test_when(container: Container, notes: Path, kind: str, before: str, after: str) -> None:
    """It has not run when the operation ``before`` is done, and has when the one ``after`` is."""
    hook(container, kind, f"echo >{notes}/ran")
    operations = {"create": container.create, "start": container.start, "stop": container.stop}
    operations["delete"] = lambda: container if container("delete").returncode == 0 else container.stop()
    for name, operation in operations.items():
        operation()
        if name == before:
            assert not (notes / "ran").exists()
        if name == after:
            assert (notes / "ran").exists()


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("prestart", {"creating", "created"}),
        ("createRuntime", {"creating", "created"}),
        ("createContainer", {"creating", "created"}),
        pytest.param("startContainer", {"created", "running"}, marks=pytest.mark.differs("crun", "its bundle is /")),
        pytest.param("poststart", {"running"}, marks=EARLY),
        ("poststop", {"stopped"}),
    ],
)
def test_the_state_is_on_stdin(container: Container, notes: Path, kind: str, status: set[str]) -> None:
    container.config["annotations"] = {"org.example.colour": "blue"}
    hook(container, kind, f'echo "$state" >{notes}/state')
    live(container)
    state = json.loads((notes / "state").read_text())
    assert (state["id"], state["bundle"]) == (container.name, str(container.bundle))
    assert state["status"] in status
    assert state["annotations"] == {"org.example.colour": "blue"}
    assert state["ociVersion"].startswith("1.")


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "poststart"])
def test_the_pid_is_in_the_state(container: Container, notes: Path, kind: str) -> None:
    """Docker's and CNI's hooks enter the network namespace by it."""
    hook(container, kind, f'echo "$state" >{notes}/state')
    container.create().start()
    assert json.loads((notes / "state").read_text())["pid"] == container.pid


@pytest.mark.parametrize("kind", ["prestart", "createRuntime"])
def test_the_namespaces_are_there(container: Container, notes: Path, kind: str) -> None:
    find = """pid=$(echo "$state" | sed 's/.*"pid": *\\([0-9]*\\).*/\\1/')"""
    hook(container, kind, f"{find}; readlink /proc/$pid/ns/net /proc/self/ns/net >{notes}/net")
    container.create()
    theirs, its_own = (notes / "net").read_text().split()
    assert theirs == os.readlink(container.proc("ns/net"))
    assert its_own == os.readlink("/proc/self/ns/net")


@pytest.mark.parametrize(
    ("kind", "inside"),
    [
        ("prestart", False),
        ("createRuntime", False),
        ("createContainer", True),
        ("startContainer", True),
        ("poststart", False),
        ("poststop", False),
    ],
)
def test_in_which_namespaces(container: Container, notes: Path, kind: str, inside: bool) -> None:
    hook(container, kind, f"readlink /proc/self/ns/uts >{notes}/uts")
    started(container)
    own = os.readlink(container.proc("ns/uts"))
    container.stop()
    assert container("delete").returncode == 0
    assert ((notes / "uts").read_text().strip() == own) == inside


def test_only_start_container_has_the_containers_root(container: Container, notes: Path, root: Path) -> None:
    (root / "etc/mark").write_text("inside\n")
    for kind in ("createRuntime", "createContainer", "startContainer"):
        hook(container, kind, f"test -e /etc/mark && echo in >{notes}/{kind} || echo out >{notes}/{kind}")
    started(container)
    found = {path.name: path.read_text().strip() for path in notes.iterdir()}
    assert found == {"createRuntime": "out", "createContainer": "out", "startContainer": "in"}


def test_the_kinds_are_run_in_their_order(container: Container, notes: Path) -> None:
    order = [kind for kind in KINDS if kind != "poststart"]
    for kind in order:
        hook(container, kind, f"echo {kind} >>{notes}/order")
    live(container)
    assert (notes / "order").read_text().split() == order


@EARLY
@LATE
def test_poststart_is_after_start_container(container: Container, notes: Path) -> None:
    """The specification: before "the user-specified process is executed" the one, after it the other."""
    for kind in AT_START:
        hook(container, kind, f"echo {kind} >>{notes}/order")
    started(container)
    assert (notes / "order").read_text().split() == list(AT_START)


@pytest.mark.parametrize("kind", KINDS)
def test_several_of_a_kind_are_run_in_their_order(container: Container, notes: Path, kind: str) -> None:
    for number in range(3):
        hook(container, kind, f"echo {number} >>{notes}/order")
    live(container)
    assert (notes / "order").read_text().split() == ["0", "1", "2"]


@pytest.mark.parametrize("kind", AT_CREATE)
def test_a_failure_at_create_fails_create(container: Container, kind: str) -> None:
    hook(container, kind, "echo 'no luck' >&2; exit 5")
    done = container.try_create()
    assert done.returncode != 0
    assert done.stderr
    assert not container.exists


def test_a_failure_of_start_container_ends_it(container: Container, notes: Path) -> None:
    hook(container, "startContainer", "exit 5")
    container.script(f"echo >{notes}/program").create()("start")
    container.await_end()
    assert not (notes / "program").exists()


@pytest.mark.differs("runc", "1.1 runs no poststop hook after one that failed")
def test_a_failure_of_poststop_is_a_warning(container: Container, notes: Path) -> None:
    """The specification: "the remaining hooks and lifecycle continue as if the hook had succeeded"."""
    hook(container, "poststop", "exit 5")
    hook(container, "poststop", f"echo >{notes}/second")
    live(container)
    assert not container.exists
    assert (notes / "second").exists()


def test_after_a_failure_no_further_hook_is_run(container: Container, notes: Path) -> None:
    hook(container, "createRuntime", "exit 5")
    hook(container, "createRuntime", f"echo >{notes}/second")
    assert container.try_create().returncode != 0
    assert not (notes / "second").exists()


def test_a_hook_that_takes_too_long_is_a_failure(container: Container) -> None:
    hook(container, "createRuntime", "exec sleep 1000", timeout=1)
    assert container.try_create().returncode != 0
    assert not container.exists


def test_a_hook_that_is_missing_is_a_failure(container: Container) -> None:
    container.config["hooks"] = {"createRuntime": [{"path": "/no/such/hook"}]}
    done = container.try_create()
    assert done.returncode != 0
    assert not container.exists


def test_the_environment_is_the_hooks_own(container: Container, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The specification: "env [...] with the same semantics as IEEE Std 1003.1-2008's environ"."""
    monkeypatch.setenv("STRAY", "of the caller")
    hook(container, "createRuntime", f"env >{notes}/env", env=["PATH=/bin:/usr/bin", "GREETING=hello world"])
    container.create()
    found = (notes / "env").read_text().splitlines()
    assert "GREETING=hello world" in found
    assert not any(line.startswith("STRAY=") for line in found)


def test_the_arguments_begin_with_the_programs_name(container: Container, notes: Path) -> None:
    container.config["hooks"] = {
        "createRuntime": [
            {"path": "/bin/sh", "args": ["other", "-c", f'cat; echo "$0" "$@" >{notes}/args', "zero", "one"]}
        ]
    }
    container.create()
    assert (notes / "args").read_text() == "zero one\n"


def test_a_hook_without_arguments(container: Container) -> None:
    container.config["hooks"] = {"createRuntime": [{"path": "/bin/cat"}]}
    assert container.create().status() == "created"


@pytest.mark.differs("crun", "1.8 takes it for a failure if the hook ends first")
def test_a_hook_need_not_read_its_stdin(container: Container) -> None:
    container.config["hooks"] = {"createRuntime": [{"path": "/bin/true", "args": ["true"]}]}
    assert container.create().status() == "created"


def test_hooks_are_run_for_run_too(container: Container, notes: Path) -> None:
    for kind in KINDS:
        hook(container, kind, f"echo {kind} >>{notes}/order")
    assert container.script(f"while ! grep poststart {notes}/order; do :; done").run().returncode == 0
    assert sorted((notes / "order").read_text().split()) == sorted(KINDS)
