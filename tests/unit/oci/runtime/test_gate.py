"""The gate: where it stands in a plan, and that a call goes through it."""

import os
import socket
import threading
from pathlib import Path

import msgspec
import pytest

from minirt.cgroups.tree import Tree
from minirt.errors import CommandNotFound
from minirt.namespaces.rootfs import PivotRoot
from minirt.oci import sync
from minirt.oci.compile import compile_spec
from minirt.oci.hooks import Hook, Hooks
from minirt.oci.init import CloseInherited, Execute, WaitForStart
from minirt.oci.runtime import gate
from minirt.oci.runtime.gate import AwaitHooks, WaitAtGate
from minirt.oci.runtime.state import State
from minirt.oci.spec import Spec

CONFIG = {
    "ociVersion": "1.2.0",
    "process": {"args": ["true"]},
    "root": {"path": "rootfs"},
    "linux": {"namespaces": [{"type": "mount"}]},
}


def test_where_it_stands() -> None:
    tree = Tree("/sys/fs/cgroup", "/sys/fs/cgroup", "/sys/fs/cgroup/minirt")
    plan = compile_spec(msgspec.convert(CONFIG, Spec), "/b", None, tree, 40)
    own, last = Hook("/own"), Hook("/last")
    inside = list(gate.with_gate(plan, 7, Hooks(create_container=(own,), start_container=(last,)), 2).inside)
    assert CloseInherited((7, 3, 4)) in inside
    assert inside.index(AwaitHooks((own,))) == inside.index(PivotRoot()) - 1
    assert inside[-2:] == [WaitAtGate(7, (last,)), Execute(("true",), (), 2)]
    assert WaitForStart() not in inside


@pytest.mark.parametrize(
    ("moments", "waits"),
    [
        (Hooks(), False),
        (Hooks(poststart=(Hook("/h"),), start_container=(Hook("/h"),)), False),
        (Hooks(prestart=(Hook("/h"),)), True),
        (Hooks(create_runtime=(Hook("/h"),)), True),
        (Hooks(create_container=(Hook("/h"),)), True),
    ],
)
def test_waits_only_where_hooks_run_before_the_gate(moments: Hooks, waits: bool) -> None:
    tree = Tree("/sys/fs/cgroup", "/sys/fs/cgroup", "/sys/fs/cgroup/minirt")
    plan = gate.with_gate(compile_spec(msgspec.convert(CONFIG, Spec), "/b", None, tree, 40), 7, moments, 0)
    assert any(isinstance(one, AwaitHooks) for one in plan.inside) is waits


def test_described() -> None:
    assert AwaitHooks((Hook("/h"),)).describe() == "wait for prestart and createRuntime hooks, run /h"
    assert WaitAtGate(3).describe() == "say ready, wait for start"


@pytest.fixture
def listener(tmp_path: Path) -> socket.socket:
    own = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own.bind(str(tmp_path / "gate.sock"))
    own.listen(1)
    return own


def answer(listener: socket.socket, reply: dict[str, object] | None, heard: list[object]) -> None:
    with listener, listener.accept()[0] as caller:
        heard.append(sync.receive(caller)[0])
        if reply:
            sync.send(caller, reply)


def test_a_call_goes_through_once(listener: socket.socket, tmp_path: Path) -> None:
    heard: list[object] = []
    init = threading.Thread(target=answer, args=(listener, None, heard))
    init.start()
    gate.call(str(tmp_path / "gate.sock"), "{}", "true", os.close)
    init.join()
    assert heard == [{"type": "start", "state": "{}"}]
    with pytest.raises(FileNotFoundError):
        gate.call(str(tmp_path / "gate.sock"), "{}", "true", os.close)


def test_what_init_fails_at_is_raised(listener: socket.socket, tmp_path: Path) -> None:
    init = threading.Thread(target=answer, args=(listener, {"type": "failed", "step": "execve", "errno": 2}, []))
    init.start()
    with pytest.raises(CommandNotFound, match="execute 'true'"):
        gate.call(str(tmp_path / "gate.sock"), "{}", "true", os.close)
    init.join()


def test_a_state_is_plain_data() -> None:
    state = State("one", "/b", "/b/r", "now", annotations={"a": "b"})
    assert msgspec.json.decode(msgspec.json.encode(state), type=State) == state
