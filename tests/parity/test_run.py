"""The same ``run`` command line, given to docker and to minirt: what comes back, and what a process finds inside.

Every case is one command for both. What must differ by nature (ids, addresses, the paths of layers) is normalised;
where docker's words differ, only their meaning is compared: a pattern that both must match.
"""

import re
import subprocess
from collections.abc import Iterator

import pytest

from minirt.security.capabilities import held_here
from tests.command import Minirt
from tests.parity.both import IMAGE, Both
from tests.peers.daemon import await_true
from tests.peers.docker import Dockerd

pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.needs("docker", "busybox", "cgroup2_tree")]


@pytest.mark.parametrize(
    "words",
    [
        ["true"],
        ["sh", "-c", "exit 7"],
        ["sh", "-c", "exit 300"],
        ["sh", "-c", "kill -9 $$; echo alive"],
        ["sh", "-c", "sh -c 'kill -TERM $$'; exit $?"],
        ["/etc"],
        ["/etc/passwd"],
        ["/no/such"],
        ["such"],
        ["sh", "-c", "echo out; echo err >&2; printf no-newline"],
        ["echo", "two words", "", "$HOME", "*"],
    ],
    ids=" ".join,
)
def test_commands_end_alike(both: Both, words: list[str]) -> None:
    peer, own = both("run", "--rm", "--network", "none", IMAGE, *words)
    assert own.returncode == peer.returncode
    assert own.stdout == peer.stdout
    if peer.returncode not in (125, 126, 127):
        assert own.stderr == peer.stderr


REFUSED = [
    (["--no-such-flag", IMAGE], r"(?i)(unknown flag|no such option).*--no-such-flag"),
    (["-w", "relative", IMAGE, "pwd"], r"'relative'.* absolute path"),
    (["-u", "stranger", IMAGE, "id"], r"user '?stranger'?: .*passwd"),
    (["-u", "0:strangers", IMAGE, "id"], r"group '?strangers'?: .*group"),
    (["-v", "relative/path:/x", IMAGE, "true"], r"relative/path.*absolute path"),
    (["-v", "/tmp:/", IMAGE, "true"], r"/tmp:/"),
    (["-v", "/tmp:/x", "-v", "/var:/x", IMAGE, "true"], r"(?i)(duplicate mount point|two volumes).*"),
    (["--name", "a/b", IMAGE, "true"], r"name '?\(?a/b"),
    (["-e", "=x", IMAGE, "true"], r"variable:? '?=x"),
    (["--cap-add", "BOGUS", IMAGE, "true"], r"(?i)capability:? .*bogus"),
    (["--oom-score-adj", "2000", IMAGE, "true"], r"2000.*-1000"),
    (["--stop-signal", "NOPE", IMAGE, "true"], r"signal:? '?NOPE"),
    (["-m", "12q", IMAGE, "true"], r"12q"),
    (["localhost/no-such-image", "true"], r"image '?localhost/no-such-image"),
]


@pytest.mark.parametrize(("words", "meaning"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_refusals_mean_the_same(both: Both, words: list[str], meaning: str) -> None:
    peer, own = both("run", "--rm", *words)
    assert (peer.returncode, own.returncode) == (125, 125), (peer.stderr, own.stderr)
    for done in (peer, own):
        assert re.search(meaning, done.stderr), done.stderr
        assert done.stdout == ""


def label(value: str | list[str]) -> str:
    """Return a parameter's place in a test's name."""
    return value if isinstance(value, str) else " ".join(value)


def test_a_name_that_is_taken(both: Both) -> None:
    both("run", "-d", "--name", "one", "--network", "none", IMAGE, "sleep", "1000")
    for done in both("run", "--name", "one", IMAGE, "true"):
        assert done.returncode == 125
        assert re.search(r"name .*one.*", done.stderr)
    assert [done.stdout for done in both("rm", "-f", "one")] == ["one\n", "one\n"]


ENVIRONMENTS = [
    [],
    ["-t"],
    ["-e", "A=1", "-e", "A=2", "-e", "B", "-e", "C="],
    ["-e", "PATH=/own", "-e", "HOME=/own", "--entrypoint", "/bin/env"],
    ["-u", "nobody"],
    ["-u", "4242:33"],
    ["-h", "web", "-w", "/made/here"],
]


@pytest.mark.parametrize("flags", ENVIRONMENTS, ids=" ".join)
def test_the_environment_is_the_same(both: Both, flags: list[str]) -> None:
    words = [] if "--entrypoint" in flags else ["env"]
    peer, own = both.lines(*flags, IMAGE, *words)
    assert _without_id(own) == _without_id(peer)


def _without_id(lines: list[str]) -> list[str]:
    """Replace the host name where it is the beginning of an id: twelve hexadecimal digits, with both."""
    return sorted(re.sub(r"^HOSTNAME=[0-9a-f]{12}$", "HOSTNAME=<id>", line) for line in lines)


@pytest.mark.parametrize("user", ["", "0", "nobody", "33", "4242:33", "nobody:root", "root:nogroup", "4242"])
def test_a_user_is_the_same_user(both: Both, user: str) -> None:
    peer, own = both.lines(*(["-u", user] if user else []), IMAGE, "sh", "-c", "id; id -G; echo ~; pwd; umask")
    assert own == peer


CAPABILITIES = [
    [],
    ["-u", "nobody"],
    ["--cap-drop", "ALL"],
    ["--cap-drop", "ALL", "--cap-add", "chown"],
    ["--cap-drop", "CAP_KILL", "--cap-drop", "MKNOD"],
    ["-u", "nobody", "--cap-add", "SYS_TIME"],
    ["--security-opt", "seccomp=unconfined"],
    ["--security-opt", "no-new-privileges", "-u", "nobody"],
]


@pytest.mark.parametrize("flags", CAPABILITIES, ids=" ".join)
def test_the_status_of_a_process_is_the_same(both: Both, flags: list[str]) -> None:
    """All that a runtime decides is compared."""
    fields = "Umask|Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp.*|Sig(Blk|Ign|Cgt)|NS[a-z]+|Threads|THP_enabled"
    peer, own = both.lines(*flags, IMAGE, "grep", "-E", f"^({fields}):", "/proc/self/status")
    assert own == peer


def test_limits_of_resources_are_the_same(both: Both) -> None:
    peer, own = both.lines(IMAGE, "cat", "/proc/self/limits")
    assert own == peer


def test_mounts_are_the_same(both: Both) -> None:
    """docker 20.10 masks less, and with tmpfs and binds of /dev/null; on hybrid machines it shows cgroup v1."""

    def normalised(lines: list[str]) -> set[tuple[str, str, frozenset[str]]]:
        found = set()
        for line in lines:
            _, point, kind, options, *_ = line.split()
            kept = frozenset(re.sub(r"^(\w+)=.*", r"\1", word) for word in options.split(","))
            found.add((point, "hosts" if point.startswith("/etc/") else kind, kept))
        return found

    peer, own = (normalised(lines) for lines in both.lines("--network", "none", IMAGE, "cat", "/proc/mounts"))
    ours_alone = {point for point, _, _ in own - peer}
    theirs_alone = {point for point, _, _ in peer - own}
    assert all(_may_differ(point) for point in ours_alone | theirs_alone), (own - peer, peer - own)


def _may_differ(point: str) -> bool:
    return point in {"/", "/proc/sysrq-trigger"} or point.startswith(("/sys/fs/cgroup", *MASKED, "/etc/"))


MASKED = ("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list")
MASKED += ("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/proc/interrupts")
MASKED += ("/sys/devices/virtual/powercap",)
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def test_what_docker_masks_is_masked_here_too(both: Both) -> None:
    empty = '[ -e $path ] && [ -z "$(ls -A $path/ 2>/dev/null)$(head -c 1 $path 2>/dev/null)" ]'
    script = f"for path in {' '.join(MASKED)}; do {empty} && echo $path; done; true"
    peer, own = both.lines("--network", "none", IMAGE, "sh", "-c", script)
    assert set(peer) <= set(own)
    assert "/proc/keys" in own


def test_what_docker_keeps_from_being_written_is_kept_here_too(both: Both) -> None:
    files = "/proc/sys/kernel/domainname /proc/irq/default_smp_affinity /proc/sysrq-trigger /sys/kernel/mm/ksm/run"
    script = (
        f"for path in {files}; do (: > $path) 2>&1 | sed 's/.*: //'; done; touch /sys/x /proc/bus/x /proc/fs/x 2>&1"
    )
    peer, own = both.lines("--network", "none", IMAGE, "sh", "-c", f"{script}; true")
    assert own == peer


def test_devices_are_the_same(both: Both) -> None:
    script = "cd /dev; for path in * pts/*; do stat -c '%A %u %g %t %T %N' $path; done"
    peer, own = both.lines("--network", "none", IMAGE, "sh", "-c", script)
    assert own == peer


def test_a_terminals_devices_are_the_same(both: Both) -> None:
    script = "tty; stat -c '%n %A %u %g %t' /dev/console /dev/pts/0 /dev/tty; stty size"
    peer, own = both.lines("-t", "--network", "none", IMAGE, "sh", "-c", script)
    assert own == peer


DEVICES = "c1:3 c1:5 c1:7 c1:8 c1:9 c1:11 c5:0 c5:1 c5:2 c10:229 c10:237 c136:0 b7:0 b7:7"
"""Some of a list that every container may use, some of the host's; not tun, which docker's runc 1.1 still allowed."""


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--cap-add", "SYS_ADMIN"],
        ["--device", "/dev/kmsg"],
        ["--device", "/dev/kmsg:/dev/log:r"],
        ["--device", "/dev/kmsg:w"],
        ["--device-cgroup-rule", "c 1:* r"],
        ["--device-cgroup-rule", "b *:7 rwm", "--device-cgroup-rule", "c 10:237 w"],
        ["--privileged"],
    ],
    ids=" ".join,
)
def test_the_same_devices_can_be_opened(both: Both, flags: list[str]) -> None:
    """What is refused is asked for only: whether a device is there, and opens, is the machine's."""
    if "--privileged" in flags and "CAP_SYS_RESOURCE" not in held_here():
        pytest.skip("CAP_SYS_RESOURCE: without it docker cannot give every capability")
    script = f"""
        for node in {DEVICES}; do
            numbers=${{node#?}}; mknod /n ${{node%%[0-9]*}} ${{numbers%:*}} ${{numbers#*:}} || echo no $node
            for mode in '<' '>>' '<>'; do eval "(: $mode /n)" 2>&1 | grep -q 'not permitted' && echo "$mode $node"; done
            rm /n
        done; true
    """
    peer, own = both.lines("--network", "none", "--cap-add", "SYSLOG", *flags, IMAGE, "sh", "-c", script)
    assert own == peer
    assert ("<> b7:0" in own) == (flags != ["--privileged"])


@pytest.mark.parametrize("network", ["none", "bridge", "host"])
def test_the_files_of_etc_are_the_same(both: Both, network: str) -> None:
    """The host's name and address differ, and so may comments. Without a network ours has a name all the same.

    On a bridge ours has an IPv6 address, too; docker's where its daemon is told so.
    """
    left_out = ("#", "127.0.1.1", "fdcd:7ee:a274:")

    def normalised(lines: list[str]) -> list[str]:
        known = [re.sub(r"[0-9a-f]{12}$", "<id>", line) for line in lines if not line.startswith(left_out)]
        return [re.sub(r"^[\d.]+\t<id>", "<ip>\t<id>", line) for line in known]

    for name in ("hostname", "hosts", "resolv.conf"):
        peer, own = both.lines("--network", network, IMAGE, "cat", f"/etc/{name}")
        assert normalised(own) == normalised(peer), name


@pytest.mark.parametrize("network", ["none", "bridge"])
def test_the_network_looks_the_same(both: Both, network: str) -> None:
    script = "ls /sys/class/net; cat /sys/class/net/*/operstate; ip route | wc -l; ping -c 1 127.0.0.1 | grep -c ttl"
    peer, own = both.lines("--network", network, IMAGE, "sh", "-c", script)
    assert own == peer


def test_stdin_goes_the_same_way(docker: Dockerd, both: Both, minirt: Minirt) -> None:
    own = minirt("run", "--rm", "-i", IMAGE, "sh", "-c", "cat; exit 3", stdin="a\nb")
    peer = subprocess.run(
        ["docker", "--host", docker.socket, "run", "--rm", "-i", IMAGE, "sh", "-c", "cat; exit 3"],
        input="a\nb",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (own.returncode, own.stdout, own.stderr) == (peer.returncode, peer.stdout, peer.stderr)


TRAP = "trap 'exit 5' TERM; trap 'exit 6' USR1; echo ready; sleep 1000 & wait"
STOPS = [
    (["sh", "-c", TRAP], [], ["stop"], "5"),
    (["sh", "-c", TRAP], ["--stop-signal", "USR1"], ["stop"], "6"),
    (["sleep", "1000"], [], ["stop", "-t", "0"], "137"),
    (["sleep", "1000"], [], ["stop", "-t", "1"], "137"),
    (["sh", "-c", TRAP], [], ["kill", "-s", "USR1"], "6"),
    (["sh", "-c", TRAP], [], ["kill", "--signal", "10"], "6"),
    (["sleep", "1000"], [], ["kill"], "137"),
]


@pytest.mark.parametrize(("command", "flags", "verb", "code"), STOPS, ids=label)
def test_stopping_has_the_same_end(
    both: Both, command: list[str], flags: list[str], verb: list[str], code: str
) -> None:
    for call in both:
        started = call("run", "-d", "--name", "one", "--network", "none", *flags, IMAGE, *command)
        assert re.fullmatch(r"[0-9a-f]{64}\n", started.stdout)
        if TRAP in command:
            await_true(lambda call=call: call("logs", "one").stdout == "ready\n", "the traps are set")  # type: ignore[misc]
        assert call(*verb, "one").stdout == "one\n"
        assert call("wait", "one").stdout == f"{code}\n"
        assert call("rm", "one").stdout == "one\n"


EXECS = [
    (["sh", "-c", "exit 9"], []),
    (["env"], ["-e", "A=1", "-e", "UNSET_HERE"]),
    (["env"], ["-u", "nobody"]),
    (["sh", "-c", "id; pwd; echo ~"], ["-u", "nobody", "-w", "/tmp"]),
    (["grep", "-E", "^(Cap...|Umask|Groups|NoNewPrivs|Sig(Blk|Ign)):", "/proc/self/status"], []),
    (["grep", "-E", "^(Cap...|Umask|Groups|NoNewPrivs|Sig(Blk|Ign)):", "/proc/self/status"], ["-u", "nobody"]),
    (["sh", "-c", "ls /proc/$$/fd; cat /proc/1/cmdline | tr '\\0' ' '"], []),
    (["tty"], ["-t"]),
]


@pytest.fixture
def running(both: Both) -> Iterator[Both]:
    """A container "one" on both, for exec."""
    for call in both:
        assert call("run", "-d", "--name", "one", "-h", "web", "-e", "B=2", IMAGE, "sleep", "1000").returncode == 0
    yield both
    both("rm", "-f", "one")


@pytest.mark.parametrize(("command", "flags"), EXECS, ids=label)
def test_exec_finds_the_same(running: Both, command: list[str], flags: list[str]) -> None:
    peer, own = running("exec", *flags, "one", *command)
    assert own.returncode == peer.returncode
    assert sorted(own.stdout.splitlines()) == sorted(peer.stdout.splitlines())


def test_exec_of_what_is_not_there_or_no_program(running: Both) -> None:
    for command, codes in ((["such"], {126, 127}), (["/etc"], {126})):
        peer, own = running("exec", "one", *command)
        assert {peer.returncode, own.returncode} <= codes


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("for i in 1 2 3; do echo out $i; echo err $i >&2; done", [[], ["-f"]]),
        ("seq 5", [["--tail", "2"], ["-n", "0"], ["-n", "9"]]),
    ],
    ids=["both streams", "tail"],
)
def test_logs_are_the_same(both: Both, script: str, flags: list[list[str]]) -> None:
    """Which of two streams comes first is nobody's promise, so the last lines are those of one."""
    for call in both:
        call("run", "--name", "one", "--network", "none", IMAGE, "sh", "-c", script)
    for words in flags:
        peer, own = both("logs", *words, "one")
        assert (own.stdout, own.stderr) == (peer.stdout, peer.stderr), words
    both("rm", "one")
