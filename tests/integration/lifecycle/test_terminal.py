"""``run -it`` and ``exec -it`` on a terminal: size, keys, raw mode and back, detaching."""

from collections.abc import Callable, Iterator

import pytest

from tests.command import COMMAND, Minirt
from tests.integration.lifecycle.terminal import Terminal
from tests.integration.lifecycle.watching import ALONE, inspected
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

CTRL_C, CTRL_D, CTRL_P, CTRL_Q = "\x03", "\x04", "\x10", "\x11"
Open = Callable[..., Terminal]


@pytest.fixture(params=["run", "exec"])
def verb(request: pytest.FixtureRequest) -> str:
    """Everything must be the same with both."""
    return str(request.param)


@pytest.fixture
def opened(minirt: Minirt, busybox: str, verb: str) -> Iterator[Open]:
    """Start a script in a container "one" on a new terminal; in the end there is no container any more."""
    if verb == "exec":
        minirt.output("run", "-d", "--name", "one", *ALONE, busybox, "sleep", "1000")

    def start(*command: str, **size: int) -> Terminal:
        words = ["exec", "-it", "one"] if verb == "exec" else ["run", "-it", "--name", "one", *ALONE, busybox]
        return Terminal([COMMAND, *words, *command], minirt.env, **size)

    yield start
    if minirt.output("ps", "-a", "-q"):
        minirt.output("rm", "-f", "one")


def test_it_is_a_terminal_of_the_containers_own_with_our_size(opened: Open) -> None:
    script = "tty; stty size; echo $TERM; ls -l /proc/self/fd/0 | sed 's/.*-> //'; echo yes > /dev/tty"
    with opened("sh", "-c", script, lines=30, columns=100) as terminal:
        assert terminal.await_end() == 0
        assert terminal.text.splitlines() == ["/dev/pts/0", "30 100", "xterm", "/dev/pts/0", "yes"]


def test_another_size_reaches_the_container(opened: Open) -> None:
    with opened("sh", "-c", "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done") as terminal:
        terminal.await_text("ready")
        terminal.resize(44, 133)
        terminal.await_text("44 133")
        assert terminal.await_end() == 0


def test_keys_go_through_and_the_exit_code_comes_back(opened: Open) -> None:
    with opened("sh") as terminal:
        terminal.await_text("# ")
        assert terminal.is_raw
        terminal.type("echo $((6 * 7))\r")
        terminal.await_text("42\r\n")
        terminal.type("exit 7\r")
        assert terminal.await_end() == 7
        assert terminal.is_restored


def test_ctrl_c_and_ctrl_d_are_the_containers(opened: Open) -> None:
    with opened("sh") as terminal:
        terminal.await_text("# ")
        terminal.type("sh -c 'echo up; exec sleep 1000'\r")
        terminal.await_text("\nup\r\n")
        terminal.type(CTRL_C)
        terminal.await_text("# ")
        terminal.type("echo code $?\r")
        terminal.await_text("code 130")
        terminal.await_text("# ")
        terminal.type(CTRL_D)
        assert terminal.await_end() == 0
        assert terminal.is_restored


def test_the_detach_keys_leave_it_running(opened: Open, minirt: Minirt, verb: str) -> None:
    with opened("sh", "-c", "echo ready; exec sleep 1000") as terminal:
        terminal.await_text("ready")
        await_true(lambda: terminal.is_raw, "raw mode")
        terminal.type(CTRL_P)
        terminal.type(CTRL_Q)
        assert terminal.await_end() == 0
        assert terminal.is_restored
    assert inspected(minirt, "one")["state"]["status"] == "running"
    if verb == "exec":
        assert "sleep 1000" in minirt.output("exec", "one", "ps", "-o", "args")


def test_who_types_faster_than_it_is_read_loses_nothing(opened: Open) -> None:
    typed = "".join(f"{number:060d}\r" for number in range(2000))
    with opened("sh", "-c", "stty -echo; echo ready; read line; cat | wc -c") as terminal:
        terminal.await_text("ready")
        terminal.type(f"\r{typed}")
        terminal.type(CTRL_D)
        terminal.await_text(str(len(typed)))
        assert terminal.await_end() == 0


def test_a_command_that_is_not_there_leaves_the_terminal_as_it_was(opened: Open) -> None:
    with opened("/no/such") as terminal:
        assert terminal.await_end() == 127
        assert "no such file or directory" in terminal.text
        assert terminal.is_restored


def test_a_container_that_is_killed_gives_the_terminal_back(opened: Open, minirt: Minirt) -> None:
    with opened("sh", "-c", "echo ready; exec sleep 1000") as terminal:
        terminal.await_text("ready")
        minirt.output("kill", "one")
        assert terminal.await_end() == 137
        assert terminal.is_restored


@pytest.mark.parametrize("verb", ["run"], indirect=True)
def test_a_terminal_needs_one_at_our_end_only_when_it_is_interactive(
    opened: Open, minirt: Minirt, busybox: str
) -> None:
    done = minirt("run", "--rm", "-it", *ALONE, busybox, "tty")
    assert (done.returncode, "our stdin is none" in done.stderr) == (125, True)
    assert minirt("run", "--rm", "-t", *ALONE, busybox, "tty").stdout == "/dev/pts/0\n"
    minirt.output("run", "-dit", "--name", "one", *ALONE, busybox, "sh")
    assert minirt("exec", "-t", "one", "tty").stdout == "/dev/pts/1\n"
    assert minirt("exec", "-it", "one", "tty").returncode == 125
    assert inspected(minirt, "one")["state"]["status"] == "running"


@pytest.mark.parametrize("verb", ["run"], indirect=True)
def test_a_terminal_alone_gets_no_keys(opened: Open, minirt: Minirt, busybox: str) -> None:
    words = ["run", "-t", "--name", "one", *ALONE, busybox, "sh", "-c", "stty size; echo ready; read line; echo read"]
    with Terminal([COMMAND, *words], minirt.env, lines=31, columns=90) as terminal:
        terminal.await_text("31 90")
        terminal.await_text("ready")
        assert terminal.is_restored
        terminal.type("x\r")
        minirt.output("kill", "one")
        assert terminal.await_end() == 137
        assert "read" not in terminal.text


@pytest.mark.parametrize("verb", ["run"], indirect=True)
def test_the_console_is_the_terminal_and_all_of_it_is_logged(opened: Open, minirt: Minirt) -> None:
    with opened(
        "sh", "-c", "echo on the console > /dev/console; echo error >&2; stat -c '%a %t' /dev/console"
    ) as terminal:
        assert terminal.await_end() == 0
        assert terminal.text.splitlines() == ["on the console", "error", "620 88"]
    logged = minirt("logs", "one")
    assert (logged.stdout.splitlines(), logged.stderr) == (["on the console", "error", "620 88"], "")
