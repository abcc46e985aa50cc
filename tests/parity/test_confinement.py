"""What narrows and widens a container, given to docker and to minirt: the same words, and what a process then finds."""

import re
import signal

import pytest

from minirt.security.capabilities import held_here
from tests.parity.both import IMAGE, Both

pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.needs("docker", "busybox", "cgroup2_tree")]


TMPFS = [
    ["--tmpfs", "/new"],
    ["--tmpfs", "/tmp", "--tmpfs", "/deep/in/it:exec,size=64k"],
    ["--tmpfs", "/new:rw,size=1m,mode=1700,suid,dev"],
    ["--tmpfs", "/new:ro,noatime"],
    ["--tmpfs", "/new:uid=33,gid=44,mode=750", "--tmpfs", "/etc:uid=33,gid=44"],
    ["--tmpfs", "/new:size=64k", "--tmpfs", "/new:size=128k,exec"],
    ["--read-only", "--tmpfs", "/new", "--tmpfs", "/run:nr_inodes=10"],
    ["--tmpfs", "/outer", "-v", "/dev/null:/outer/inner/null:ro"],
]


@pytest.mark.parametrize("flags", TMPFS, ids=" ".join)
def test_a_tmpfs_is_the_same(both: Both, flags: list[str]) -> None:
    places = [word.partition(":")[0] for word in flags if word.startswith("/") and ":/" not in word]
    script = f'for place in {" ".join(sorted(set(places)))}; do grep " $place tmpfs " /proc/mounts; '
    script += "stat -c '%a %u:%g %n' $place; cp /bin/busybox $place/true 2>/dev/null && $place/true 2>&1; echo $?; done"
    peer, own = both.lines("--network", "none", *flags, IMAGE, "sh", "-c", script)
    assert [_options(line) for line in own] == [_options(line) for line in peer]


def _options(line: str) -> str | list[str]:
    """Return a line of /proc/mounts with its options in order, anything else as it is."""
    words = line.split()
    return [*words[:3], *sorted(words[3].split(","))] if words[2:3] == ["tmpfs"] else re.sub(r".*: ", "", line)


@pytest.mark.parametrize(
    "flags",
    [
        ["--ulimit", "nofile=100:200"],
        ["--ulimit", "nofile=100"],
        ["--ulimit", "core=0", "--ulimit", "cpu=10:20", "--ulimit", "stack=65536"],
        ["--ulimit", "nofile=1:2", "--ulimit", "nofile=64:128"],
        ["--ulimit", "fsize=1000000", "--ulimit", "nproc=50", "-u", "nobody"],
    ],
    ids=" ".join,
)
def test_limits_are_the_same(both: Both, flags: list[str]) -> None:
    peer, own = both.lines("--network", "none", *flags, IMAGE, "cat", "/proc/self/limits")
    assert own == peer


SYSCTLS = [
    [],
    ["--network", "none"],
    ["--sysctl", "net.core.somaxconn=77", "--sysctl", "net.ipv4.ip_forward=1"],
    ["--sysctl", "kernel.msgmax=9000", "--sysctl", "kernel.shm_rmid_forced=1", "--sysctl", "fs.mqueue.msg_max=20"],
    ["--sysctl", "net.ipv4.ip_unprivileged_port_start=1024", "--sysctl", "net.ipv4.ping_group_range=5 6"],
]


@pytest.mark.parametrize("flags", SYSCTLS, ids=" ".join)
def test_sysctls_are_the_same(both: Both, flags: list[str]) -> None:
    names = "net/core/somaxconn net/ipv4/ip_forward net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range"
    names += " kernel/msgmax kernel/shm_rmid_forced fs/mqueue/msg_max"
    own_network = [] if "none" in flags else ["--network", "none"]
    peer, own = both.lines(*own_network, *flags, IMAGE, "sh", "-c", f"cd /proc/sys; tail -n 1 {names}")
    assert own == peer


def test_anybody_may_use_a_low_port_and_ping(both: Both) -> None:
    script = "nc -l -p 80 </dev/null & ping -c 1 127.0.0.1 | grep received; kill $! && echo listened"
    peer, own = both.lines("--network", "none", "--cap-drop", "ALL", "-u", "nobody", IMAGE, "sh", "-c", script)
    assert own == peer
    assert own[-1] == "listened"


@pytest.mark.parametrize("flags", [[], ["--read-only"], ["-u", "nobody"], ["-t"]], ids=" ".join)
def test_an_init_runs_the_command(both: Both, flags: list[str]) -> None:
    script = "tr '\\0' '|' </proc/1/cmdline; echo; tr '\\0' '|' </proc/self/cmdline; echo; cat /proc/1/comm"
    script += "; [ $$ != 1 ]; echo $?; grep -c '/sbin/docker-init ' /proc/mounts; ls -l /sbin/docker-init | cut -c 1-10"
    peer, own = both.lines("--network", "none", "--init", *flags, IMAGE, "sh", "-c", script)
    assert own == peer


def test_an_init_reaps_orphans(both: Both) -> None:
    """Without it they stay zombies of a program that does not expect them."""
    script = """(sh -c 'usleep 100000 & echo $! >/orphan'); orphan=$(cat /orphan); i=0
        while [ -e /proc/$orphan ] && [ $i -lt 20 ]; do i=$((i + 1)); usleep 50000; done
        [ ! -e /proc/$orphan ] || echo zombie"""
    # sleep as PID 1 reaps nobody: the script is exec'd beside it, and its orphans become sleep's, or the init's.
    for flags, want in ([], ["zombie"]), (["--init"], []):
        for call in both:
            call("run", "-d", "--name", "one", "--network", "none", *flags, IMAGE, "sleep", "1000")
            assert call("exec", "one", "sh", "-c", script).stdout.split() == want, (flags, call)
            call("rm", "-f", "one")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_an_init_forwards_signals(both: Both, number: signal.Signals) -> None:
    script = "trap 'exit 41' TERM; trap 'exit 42' INT; trap 'exit 43' USR1; echo up; while :; do sleep 0.05; done"
    codes = []
    for call in both:
        call("run", "-d", "--name", "one", "--network", "none", "--init", IMAGE, "sh", "-c", script)
        while call("logs", "one").stdout != "up\n":
            pass
        call("kill", "-s", str(int(number)), "one")
        codes.append(call("wait", "one").stdout.strip())
        call("rm", "-f", "one")
    assert codes[0] == codes[1] == str({signal.SIGTERM: 41, signal.SIGINT: 42, signal.SIGUSR1: 43}[number])


@pytest.mark.parametrize(
    "words", [["sh", "-c", "exit 7"], ["sh", "-c", "kill -9 $$"], ["such"], ["/etc"]], ids=" ".join
)
def test_an_inits_end_is_the_commands(both: Both, words: list[str]) -> None:
    peer, own = both("run", "--rm", "--network", "none", "--init", IMAGE, *words)
    said = [re.sub(r"^\[FATAL tini \(\d+\)]", "", done.stderr) for done in (peer, own)]
    assert (own.returncode, own.stdout, said[1]) == (peer.returncode, peer.stdout, said[0])


def test_system_paths_unconfined(both: Both) -> None:
    script = "grep -c -E ' (/proc/|/sys/firmware)' /proc/mounts; head -c 1 /proc/timer_list | wc -c"
    peer, own = both.lines("--network", "none", "--security-opt", "systempaths=unconfined", IMAGE, "sh", "-c", script)
    assert own == peer


STATUS = "grep -E '^(Cap...|NoNewPrivs|Seccomp|Uid|Gid|Groups):' /proc/self/status"


@pytest.mark.parametrize(
    "flags",
    [
        ["--privileged"],
        ["--privileged", "-u", "nobody"],
        ["--privileged", "--cap-drop", "ALL"],
        ["--cap-add", "ALL", "--cap-drop", "SYS_ADMIN"],
        ["--cap-add", "ALL", "-u", "1000:1000"],
        ["--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"],
        ["--security-opt", "no-new-privileges=false"],
        ["--security-opt", "label=disable"],
        ["--userns", "host"],
        ["-u", "nobody:root"],
        ["-u", "root:nogroup", "--read-only"],
    ],
    ids=" ".join,
)
def test_a_process_is_the_same(both: Both, flags: list[str]) -> None:
    if ("--privileged" in flags or flags[:2] == ["--cap-add", "ALL"]) and "CAP_SYS_RESOURCE" not in held_here():
        pytest.skip("CAP_SYS_RESOURCE: without it docker cannot give every capability")
    peer, own = both.lines("--network", "none", *flags, IMAGE, "sh", "-c", f"{STATUS}; (: >/x) 2>&1; id")
    assert own == peer


REFUSED = [
    (["--tmpfs", "relative"], r"(?i)relative.*absolute"),
    (["--tmpfs", "/"], r"'?/'?.*"),
    (["--tmpfs", "/x:bogus"], r"bogus"),
    (["--tmpfs", "/x", "-v", "/tmp:/x"], r"(?i)(duplicate mount point|two volumes).*"),
    (["--ulimit", "nofile"], r"ulimit.*nofile"),
    (["--ulimit", "bogus=1"], r"ulimit.*bogus"),
    (["--ulimit", "nofile=5:3"], r"soft limit.*(3|hard)"),
    (["--ulimit", "nofile=x"], r"(ulimit|invalid syntax).*"),
    (["--sysctl", "net.core.somaxconn"], r"sysctl '?net.core.somaxconn"),
    (["--sysctl", "kernel.panic=1"], r"sysctl '?kernel.panic.* not (allowed|whitelisted)"),
    (["--sysctl", "kernel.hostname=x"], r"sysctl '?kernel.hostname.* not (allowed|whitelisted)"),
    (["--sysctl", "kernel.domainname=x"], r"sysctl '?kernel.domainname.* not (allowed|whitelisted)"),
    (["--sysctl", "vm.swappiness=1"], r"sysctl '?vm.swappiness.* not (allowed|whitelisted)"),
    (["--network", "host", "--sysctl", "net.core.somaxconn=1"], r"sysctl '?\"?net.core.somaxconn.* not allowed"),
    (["--ipc", "host", "--sysctl", "kernel.msgmax=1"], r"sysctl '?\"?kernel.msgmax.* not allowed"),
    (["--userns", "bogus"], r"(?i)(--userns|user).*"),
    (["--security-opt", "bogus"], r"security.opt(ion)?.*bogus"),
    (["--security-opt", "no-new-privileges=maybe"], r"no-new-privileges.*"),
]


@pytest.mark.parametrize(("flags", "meaning"), REFUSED, ids=[" ".join(flags) for flags, _ in REFUSED])
def test_refusals_mean_the_same(both: Both, flags: list[str], meaning: str) -> None:
    peer, own = both("run", "--rm", *flags, IMAGE, "true")
    assert (peer.returncode, own.returncode) == (125, 125), (peer.stderr, own.stderr)
    for done in (peer, own):
        assert re.search(meaning, done.stderr), done.stderr
