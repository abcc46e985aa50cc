"""Seccomp's SCMP_ACT_NOTIFY: whoever listens at listenerPath decides on a system call, for the program and for exec.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config-linux.md#seccomp, seccomp_unotify(2)
"""

import array
import contextlib
import errno
import fcntl
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.oci.container import Container
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer]

RECEIVE, ANSWER = 0xC0502100, 0xC0182101
"""SECCOMP_IOCTL_NOTIF_RECV and _SEND, of structs of 80 and 24 bytes. Source: linux/seccomp.h"""
CONTINUE = 1
MKDIR = ["mkdir", "mkdirat"]


class Agent:
    """Who listens: it answers what it is asked about with an errno (0: let the kernel do it), until it is closed."""

    def __init__(self, path: Path, number: int) -> None:
        self.states: list[dict[str, Any]] = []
        self.number = number
        self.asked = 0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                descriptors = array.array("i")
                text, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(8))
                for _, _, content in ancillary:
                    descriptors.frombytes(content)
            if not text:  # runc closes its end late: the state is what came at once
                return
            self.states.append(json.loads(text) | {"received": len(descriptors)})
            self._threads.append(threading.Thread(target=self._decide, args=(descriptors[0],)))
            self._threads[-1].start()

    def _decide(self, fd: int) -> None:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while any(events & select.POLLIN for _, events in poll.poll()):
            request = bytearray(80)
            with contextlib.suppress(FileNotFoundError):  # who asked was killed meanwhile
                fcntl.ioctl(fd, RECEIVE, request)
                self.asked += 1
                (number,) = struct.unpack_from("=Q", request)
                answer = struct.pack("=Qqii", number, 0, -self.number, 0 if self.number else CONTINUE)
                fcntl.ioctl(fd, ANSWER, bytearray(answer))
        os.close(fd)

    def close(self) -> None:
        """Stop listening, and wait until all whom it decided for have ended."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
            last.connect(self._listener.getsockname())
        for thread in self._threads:
            thread.join(10)
        self._listener.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent that has no room on any device."""
    own = Agent(tmp_path / "agent.sock", errno.ENOSPC)
    yield own
    own.close()


def ask(container: Container, at: Path, *names: str, **more: Any) -> Container:
    """Have a container ask about these system calls."""
    rule = {"names": list(names), "action": "SCMP_ACT_NOTIFY"}
    container.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(at),
        "syscalls": [rule],
        **more,
    }
    return container


@pytest.fixture
def asking(agent: Agent, container: Container, tmp_path: Path) -> Container:
    """A container that asks the agent before it makes a directory, and ends before it."""
    return ask(container, tmp_path / "agent.sock", *MKDIR)


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_agent_decides(asking: Container, agent: Agent, no_new_privileges: bool) -> None:
    asking.process["noNewPrivileges"] = no_new_privileges
    done = asking.args("mkdir", "/tmp/new").run()
    assert "No space left on device" in done.stderr
    assert done.returncode == 1


def test_the_agent_may_let_it_be_done(asking: Container, agent: Agent, root: Path) -> None:
    agent.number = 0
    assert asking.args("mkdir", "/tmp/new").run().returncode == 0
    assert (root / "tmp/new").is_dir()


def test_what_the_agent_is_told(asking: Container, agent: Agent) -> None:
    asking.linux["seccomp"]["listenerMetadata"] = "what I need to know"
    asking.config["annotations"] = {"org.example": "yes"}
    asking.create().start()
    await_true(lambda: bool(agent.states), "the state")
    (told,) = agent.states
    assert (told["fds"], told["received"], told["metadata"]) == (["seccompFd"], 1, "what I need to know")
    assert (told["pid"], told["state"]["pid"], told["state"]["id"]) == (asking.pid, asking.pid, asking.name)
    assert told["state"]["annotations"]["org.example"] == "yes"
    assert told["state"]["status"] in {"creating", "created"}
    assert told["ociVersion"] and told["state"]["bundle"] == str(asking.bundle)


def test_exec_asks_too(asking: Container, agent: Agent) -> None:
    asking.create().start()
    assert "No space left on device" in asking.exec("mkdir", "/tmp/new").stderr
    await_true(lambda: len(agent.states) == 2, "the second state")
    first, second = agent.states
    assert first["pid"] == asking.pid != second["pid"]


@pytest.mark.differs("crun", "1.8 says 0")
def test_the_state_is_the_containers_for_exec_too(asking: Container, agent: Agent) -> None:
    asking.create().start()
    asking.exec("true")
    await_true(lambda: len(agent.states) == 2, "the second state")
    assert agent.states[1]["state"]["pid"] == asking.pid


def test_the_program_itself_has_no_descriptor_of_it(asking: Container, agent: Agent) -> None:
    assert asking.says("ls -l /proc/self/fd | grep -c seccomp || :") == "0"
    assert asking.says("ls /proc/self/task | wc -l") == "1"


def test_where_nobody_listens_nothing_runs(container: Container, tmp_path: Path, root: Path) -> None:
    ask(container, tmp_path / "nobody.sock", "mkdir", "mkdirat")
    done = container.script("echo >/tmp/new").run()
    assert done.returncode != 0
    assert "nobody.sock" in done.stderr
    assert not (root / "tmp/new").exists()


@pytest.mark.differs("crun", "1.8 takes it")
def test_without_a_path_there_is_nobody_to_ask(container: Container) -> None:
    ask(container, Path(), *MKDIR)
    del container.linux["seccomp"]["listenerPath"]
    assert container.try_create().returncode != 0
    assert not container.exists


@pytest.mark.differs("crun", "1.8 connects all the same")
def test_a_path_that_no_rule_needs_is_ignored(container: Container, tmp_path: Path) -> None:
    """The specification: "If no actions of SCMP_ACT_NOTIFY are used, the value of listenerPath is ignored"."""
    container.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": str(tmp_path / "nobody.sock")}
    assert container.says("echo fine") == "fine"


@pytest.mark.parametrize(
    "name",
    [pytest.param("write", marks=pytest.mark.differs("runc", "1.1 refuses it: it writes itself")), "execve", "sendmsg"],
)
def test_a_call_that_a_runtime_makes_itself(container: Container, agent: Agent, tmp_path: Path, name: str) -> None:
    """Whoever starts the program under a filter must get the listener out first."""
    agent.number = 0
    ask(container, tmp_path / "agent.sock", name)
    assert container.says("echo fine") == "fine"
    assert agent.asked >= (name in {"write", "execve"})


@pytest.mark.differs("runc", "1.1 refuses it")
def test_the_default_action(container: Container, agent: Agent, tmp_path: Path) -> None:
    agent.number = 0
    container.linux["seccomp"] = {"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": str(tmp_path / "agent.sock")}
    assert container.says("echo fine") == "fine"
    assert agent.asked > 10
