"""The command line of minirt-oci: what its callers really send."""

import pytest

from minirt.errors import InvalidInput
from minirt.oci.runtime import arguments
from minirt.oci.runtime.handlers import BY_COMMAND, signal_number


def parse(line: str) -> arguments.Arguments:
    return arguments.parse(line.split())


def test_containerds_create() -> None:
    chosen = parse("--root /r --log /b/log.json --log-format json create --bundle /b --pid-file /b/init.pid one")
    assert (chosen.command, chosen.words) == ("create", ("one",))
    wanted = {"root": "/r", "log": "/b/log.json", "log_format": "json", "bundle": "/b", "pid_file": "/b/init.pid"}
    assert wanted.items() <= chosen.flags.items()
    assert (chosen.flags["preserve_fds"], chosen.flags["systemd_cgroup"]) == (0, False)


def test_podmans_create_and_exec() -> None:
    flags = parse("--systemd-cgroup --log-format=json --log=/l create -b /b --preserve-fds=2 --no-pivot one").flags
    assert (flags["systemd_cgroup"], flags["log_format"], flags["preserve_fds"], flags["no_pivot"]) == (
        True,
        "json",
        2,
        True,
    )
    chosen = parse("exec -e A=1 --env B=2 -g 4 -u 1:2 -d -t one sh -c true")
    assert chosen.words == ("one", "sh", "-c", "true"), "flags after the id are the command's"
    assert (chosen.flags["env"], chosen.flags["additional_gids"]) == (["A=1", "B=2"], ["4"])


def test_a_switch_may_say_false_and_a_double_dash_ends_the_flags() -> None:
    assert arguments.parse(["--debug=false", "list"]).flags["debug"] is False
    assert arguments.parse(["delete", "--force", "--", "-odd"]).words == ("-odd",)


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["fly"], "there is no such command"),
        (["create", "--wings", "x"], "no flag --wings"),
        (["create", "--bundle"], "--bundle needs a value"),
        (["create", "--preserve-fds", "many", "x"], "takes a number, not 'many'"),
    ],
)
def test_what_is_wrong_is_said(argv: list[str], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        arguments.parse(argv)


@pytest.mark.parametrize(("argv", "command"), [([], "help"), (["-h"], "help"), (["--version"], "version")])
def test_without_a_command(argv: list[str], command: str) -> None:
    assert arguments.parse(argv).command == command


def test_every_command_is_handled_and_helped() -> None:
    assert set(BY_COMMAND) == set(arguments.COMMANDS) - {"checkpoint", "restore"}
    assert all(f"\n  {name} " in arguments.usage() for name in arguments.COMMANDS)


@pytest.mark.parametrize(("word", "number"), [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("usr1", 10), ("RTMIN+1", 35)])
def test_signals_by_any_name(word: str, number: int) -> None:
    assert signal_number(word) == number


@pytest.mark.parametrize("word", ["0", "65", "FLY", "-1", "RTMAX+1", ""])
def test_no_signal(word: str) -> None:
    with pytest.raises(InvalidInput, match="no such signal"):
        signal_number(word)
