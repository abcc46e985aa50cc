"""Attacks on runtimes that have worked, tried for real: on a copy of the runtime, where it is what is attacked.

A test passes where the attack comes to nothing, whether the runtime refuses the container or runs it harmlessly.
"""

import hashlib
import json
import os
import platform
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from minirt import launcher
from tests.contract.oci.container import Container, fields
from tests.peers.daemon import await_true
from tests.peers.oci import Runtime

pytestmark = [pytest.mark.root, pytest.mark.peer]

ATTACKS = Path(__file__).parent / "attacks"


def built(name: str, target: Path, *flags: str) -> None:
    """Compile one of the attackers' programs."""
    subprocess.run(["gcc", "-O1", *flags, "-o", target, ATTACKS / f"{name}.c"], check=True)


# --- CVE-2019-5736: a container executes /proc/self/exe, and so gets hold of the runtime's own file


@pytest.fixture
def copied(runtime: Runtime, tmp_path: Path) -> tuple[Runtime, Path]:
    """The runtime as a copy of itself, and the file that its processes execute."""
    place = tmp_path / "copy"
    place.mkdir()
    if runtime.name != "minirt-oci":
        copy = Path(shutil.copy(str(shutil.which(runtime.program[-1])), place / runtime.name))
        return replace(runtime, program=(*runtime.program[:-1], str(copy))), copy
    subprocess.run([sys.executable, "-m", "venv", "--copies", "--without-pip", place], check=True)
    python, start = place / "bin/python3", place / runtime.name
    start.write_text(
        launcher.script("minirt-oci", str(python), launcher.directories_of(launcher.COMMANDS["minirt-oci"].packages))
    )
    start.chmod(0o755)
    return replace(runtime, program=(str(start),)), python


@pytest.fixture
def harmful(copied: tuple[Runtime, Path], tmp_path: Path, root: Path) -> Iterator[Container]:
    """A container of that copy, whose dynamic loader is the attacker's: it runs as any program of the host's would."""
    if platform.machine() != "x86_64":
        pytest.skip("gcc: the attacker's loader is for x86-64")
    (root / "lib64").mkdir()
    built("loader", root / "lib64/ld-linux-x86-64.so.2", "-nostdlib", "-static-pie", "-fno-stack-protector")
    built("overwrite", root / "bin/overwrite", "-static")
    (root / "bin/link").symlink_to("/proc/self/exe")
    (root / "bin/script").write_text("#!/proc/self/exe\n")
    (root / "bin/script").chmod(0o755)
    own = Container(copied[0], tmp_path, root)
    yield own
    own.leave_nothing()


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.needs("gcc")
@pytest.mark.parametrize("program", ["/proc/self/exe", "/bin/link", "/bin/script"])
@pytest.mark.parametrize("verb", ["start", "exec"])
def test_cve_2019_5736(harmful: Container, copied: tuple[Runtime, Path], program: str, verb: str) -> None:
    """Detached: the file cannot be written to while a process of the runtime's executes it."""
    before = digest(copied[1])
    if verb == "start":
        is_executed = not harmful.args(program).try_create().returncode and not harmful("start").returncode
    else:
        harmful.create().start()
        description = harmful.bundle / "process.json"
        description.write_text(json.dumps(harmful.process | {"args": [program]}))
        words = ("exec", "--detach", "--process", description, harmful.name)
        is_executed = not copied[0].detached(*words, stdout=harmful.output).returncode
    if is_executed:
        await_true(lambda: "wr" in harmful.output.read_text(), "the attacker's last word", 20)
    assert digest(copied[1]) == before


@pytest.mark.needs("gcc")
@pytest.mark.parametrize("program", ["/bin/link", "/bin/script"])
def test_cve_2019_5736_in_a_hook(harmful: Container, copied: tuple[Runtime, Path], program: str) -> None:
    """startContainer hooks are programs of the container's."""
    before = digest(copied[1])
    harmful.config["hooks"] = {"startContainer": [{"path": program}]}
    harmful.create()
    harmful("start")
    await_true(lambda: not any(map(is_overwriting, Path("/proc").glob("[0-9]*"))), "the attacker's end", 20)
    assert digest(copied[1]) == before


def is_overwriting(process: Path) -> bool:
    """Say whether a process is the attacker's that writes; its PID 1 reaps nobody, so it may have ended."""
    try:
        about = fields(process.name)
    except OSError:
        return False
    return about["Name"] == "overwrite" and not about["State"].startswith("Z")


# --- CVE-2024-21626: the working directory is a descriptor of the host's that the runtime has left open


@pytest.fixture
def marked(container: Container, tmp_path: Path) -> Container:
    """A container that looks for a file of the host's, from where it stands upwards."""
    (tmp_path / "marker").write_text("of the host\n")
    container.script(
        f"up=.; for i in 1 2 3 4 5 6 7 8 9; do [ -e $up{tmp_path}/marker ] && echo escaped from $PWD; up=$up/..; done"
    )
    return container


FDS = range(3, 20)


@pytest.mark.parametrize("way", ["path", "link"])
def test_cve_2024_21626(marked: Container, root: Path, way: str) -> None:
    for fd in FDS:
        place = f"/proc/self/fd/{fd}"
        if way == "link":
            place = f"/link{fd}"
            (root / place[1:]).symlink_to(f"/proc/self/fd/{fd}/")
        marked.process["cwd"] = place
        assert "escaped" not in marked.run().stdout


def test_cve_2024_21626_in_exec(marked: Container) -> None:
    script = marked.process["args"]
    marked.args("sleep", "1000").create().start()
    for fd in FDS:
        assert "escaped" not in marked.try_exec_process(*script, cwd=f"/proc/self/fd/{fd}").stdout


# --- CVE-2025-31133: /dev/null in the container, with which paths are masked, leads elsewhere


@pytest.fixture
def fake_dev(container: Container, tmp_path: Path) -> Path:
    """A directory of the attacker's as the container's /dev: no runtime puts nodes of its own there."""
    own = tmp_path / "dev"
    (own / "pts").mkdir(parents=True)
    for name, minor in (("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
        os.mknod(own / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
    kept = ("/proc", "/sys", "/tmp")
    container.config["mounts"] = [one for one in container.config["mounts"] if one["destination"] in kept]
    container.mount("/dev", "bind", own, "rbind", "rw")
    return own


@pytest.mark.differs("runc", "1.1 masks with whatever /dev/null is")
@pytest.mark.differs("crun", "1.8 masks with whatever /dev/null is")
@pytest.mark.parametrize("target", ["/proc/version", "../proc/self/../version", "/etc/passwd"])
def test_cve_2025_31133(container: Container, fake_dev: Path, target: str) -> None:
    (fake_dev / "null").symlink_to(target)
    container.linux["maskedPaths"] = ["/proc/timer_list"]
    done = container.script("head -c 20 /proc/timer_list; stat -c %t:%T /proc/timer_list").run()
    assert done.returncode != 0 or done.stdout == "1:3\n"
    assert "Linux" not in done.stdout
    assert "root" not in done.stdout


@pytest.mark.differs("runc", "1.1 masks with whatever /dev/null is")
@pytest.mark.differs("crun", "1.8 masks with whatever /dev/null is")
def test_cve_2025_31133_as_a_race(container: Container, fake_dev: Path) -> None:
    """The node is what it should be, and then a symlink, and then again: whoever looks twice sees both."""
    os.mknod(fake_dev / "node", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (fake_dev / "link").symlink_to("/proc/version")
    swap = """
import os, sys
os.chdir(sys.argv[1])
while True:
    for name in ("node", "link"):
        os.link(name, "new", follow_symlinks=False)
        os.rename("new", "null")
"""
    container.linux["maskedPaths"] = ["/proc/timer_list"]
    with subprocess.Popen([sys.executable, "-c", swap, fake_dev]) as attacker:
        await_true(lambda: os.path.lexists(fake_dev / "null"), "the attacker")
        try:
            said = [container.script("head -c 5 /proc/timer_list").run().stdout for _ in range(15)]
        finally:
            attacker.kill()
    assert "Linux" not in said


# --- CVE-2025-52565: what is bound on /dev/console is found by a path in the container


def said_on_a_terminal(container: Container, directory: Path, script: str) -> str:
    """Run a script on a terminal; return what it printed ("" where the runtime refuses the container)."""
    container.process["terminal"] = True
    container.script(f"{script}; echo end; exec sleep 1000")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "console"))
        listener.listen(1)
        if container.try_create("--console-socket", directory / "console").returncode:
            return ""
        if container("start").returncode:
            return ""
        connection, _ = listener.accept()
        with connection:
            _, received, _, _ = socket.recv_fds(connection, 4096, 1)
    said = b""
    with open(received[0], "rb", buffering=0) as master:
        while b"end" not in said:
            said += master.read(4096)
    return said.decode()


def test_cve_2025_52565(container: Container, fake_dev: Path, tmp_path: Path) -> None:
    """The terminals are in a devpts elsewhere, and /dev/pts has links to a file of the kernel's."""
    (fake_dev / "null").symlink_to("zero")
    (fake_dev / "elsewhere").mkdir()
    (fake_dev / "ptmx").symlink_to("elsewhere/ptmx")
    (fake_dev / "console").touch()
    for number in range(5):
        (fake_dev / "pts" / str(number)).symlink_to("/proc/version")
    container.linux["maskedPaths"] = []
    container.mount("/dev/elsewhere", "devpts", "devpts", "newinstance", "ptmxmode=0666", "mode=0620")
    said = said_on_a_terminal(container, tmp_path, "stat -c %F /dev/console")
    assert said == "" or "character special" in said


@pytest.mark.differs("runc", "1.1 follows a symlink at /dev/console")
@pytest.mark.differs("crun", "1.8 follows a symlink at /dev/console")
def test_cve_2025_52565_with_a_link_as_the_target(container: Container, tmp_path: Path, root: Path) -> None:
    """What is mounted on the console must not cover what the link names."""
    (root / "victim").write_text("whole\n")
    own = tmp_path / "dev"
    own.mkdir()
    (own / "console").symlink_to("/victim")
    for name in ("pts", "shm", "mqueue"):
        (own / name).mkdir()
    container.config["mounts"] = [one for one in container.config["mounts"] if one["destination"] != "/dev"]
    container.config["mounts"].insert(
        1, {"destination": "/dev", "type": "bind", "source": str(own), "options": ["bind"]}
    )
    (own / "ptmx").symlink_to("pts/ptmx")
    for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
        os.mknod(own / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
    said = said_on_a_terminal(container, tmp_path, "stat -c %F /victim")
    assert said == "" or "regular file" in said


# --- CVE-2025-52881, CVE-2019-16884: what the runtime writes to /proc ends up in a file of the attacker's


@pytest.fixture
def fake_proc(tmp_path: Path) -> Path:
    """A directory that looks like /proc as far as a runtime writes to it."""
    own = tmp_path / "proc"
    for name in ("self/oom_score_adj", "self/attr/exec", "self/attr/apparmor/exec", "sys/net/core/somaxconn"):
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_text("untouched\n")
    return own


def touched(directory: Path) -> list[str]:
    return [str(file) for file in directory.rglob("*") if file.is_file() and file.read_text() != "untouched\n"]


@pytest.mark.parametrize("place", ["/proc", "/proc/sys/net/core", "/proc/self"])
def test_cve_2025_52881(container: Container, fake_proc: Path, place: str) -> None:
    """Either it is refused, or what was asked for holds, and nothing is written to the attacker's files."""
    container.mount(place, "bind", fake_proc / place.removeprefix("/proc").lstrip("/"), "rbind", "rw")
    container.mount("/real", "proc", "proc")
    container.linux["sysctl"] = {"net.core.somaxconn": "77"}
    container.process["oomScoreAdj"] = 321
    done = container.script("cat /real/sys/net/core/somaxconn /real/self/oom_score_adj").run()
    assert touched(fake_proc) == []
    assert done.returncode != 0 or done.stdout.split() == ["77", "321"]


def test_cve_2025_52881_in_exec(container: Container, fake_proc: Path, root: Path) -> None:
    container.mount("/fake", "bind", fake_proc, "rbind", "rw")
    container.mount("/real", "proc", "proc")
    container.process["capabilities"] = {kind: ["CAP_SYS_ADMIN"] for kind in ("bounding", "effective", "permitted")}
    container.script("mount --bind /fake /proc && echo >/root/up; exec sleep 1000")
    container.create().start()
    await_true((root / "root/up").exists, "the fake /proc")
    done = container.try_exec_process("cat", "/real/self/oom_score_adj", oomScoreAdj=321)
    assert touched(fake_proc) == []
    assert done.returncode != 0 or done.stdout == "321\n"
