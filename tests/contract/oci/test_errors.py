"""What a runtime says when something is wrong, by the words and numbers that callers go by; nothing is left behind.

containerd's shim and conmon match texts: "does not exist" is no such container, "executable file not found" and "no
such file or directory" become exit code 127, "permission denied" 126.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.contract.oci.container import Container
from tests.peers.oci import Runtime

pytestmark = [pytest.mark.root, pytest.mark.peer]

OTHER_WORDS = pytest.mark.differs("crun", "1.8 names the file that it misses")
LAX = pytest.mark.differs("crun", "1.8 takes it")


@OTHER_WORDS
@pytest.mark.parametrize(
    "words",
    [
        ("start", "nobody"),
        ("kill", "nobody", "KILL"),
        ("state", "nobody"),
        ("delete", "nobody"),
        ("exec", "nobody", "true"),
        ("ps", "nobody"),
        ("pause", "nobody"),
        ("resume", "nobody"),
    ],
    ids=lambda words: words[0],
)
def test_a_container_that_is_not_there(runtime: Runtime, words: tuple[str, ...]) -> None:
    done = runtime(*words)
    assert done.returncode != 0
    assert "does not exist" in done.stderr


@pytest.mark.parametrize("words", [("nonsense",), ("create",), ("create", "--nonsense", "x"), ("start",), ("kill",)])
def test_a_command_line_that_is_none(runtime: Runtime, words: tuple[str, ...], tmp_path: Path) -> None:
    assert runtime(*words).returncode != 0


@pytest.mark.parametrize("verb", ["create", "run"])
def test_no_bundle(container: Container, verb: str, tmp_path: Path) -> None:
    container.bundle.rename(tmp_path / "moved")
    done = container.runtime.detached(verb, "--bundle", container.bundle, container.name)
    assert done.returncode != 0
    assert "no such file or directory" in done.stderr.lower()
    assert not container.exists


def test_no_configuration(container: Container) -> None:
    (container.bundle / "config.json").unlink()
    done = container.runtime.detached("create", "--bundle", container.bundle, container.name)
    assert done.returncode != 0
    assert "config.json" in done.stderr
    assert not container.exists


@pytest.mark.parametrize("text", ["", "{", "[]", "not json", '"text"'])
def test_a_configuration_that_cannot_be_read(container: Container, text: str) -> None:
    (container.bundle / "config.json").write_text(text)
    done = container.runtime.detached("create", "--bundle", container.bundle, container.name)
    assert done.returncode != 0
    assert done.stderr
    assert not container.exists


def broken(config: dict[str, Any], path: str, value: Any) -> None:
    """Set one field of a configuration; remove it where the value is None."""
    *parents, last = path.split(".")
    for name in parents:
        config = config[name]
    if value is None:
        del config[last]
    else:
        config[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("process.args", []),
        pytest.param("process.args", None, marks=LAX),
        pytest.param("process.args", "sh", marks=LAX),
        ("process.cwd", ""),
        pytest.param("process.cwd", "relative", marks=LAX),
        pytest.param("process.capabilities", {"bounding": "CAP_CHOWN"}, marks=LAX),
        ("process.rlimits", [{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}]),
        ("process.rlimits", [{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 10}]),
        pytest.param("process.user", {"uid": "root"}, marks=LAX),
        ("root.path", "/no/such/root"),
        ("root", None),
        ("mounts", {}),
        pytest.param("hostname", 7, marks=LAX),
        ("linux.namespaces", [{"path": "/proc/self/ns/net"}]),
        ("linux.namespaces", "all"),
        pytest.param("linux.rootfsPropagation", "nonsense", marks=LAX),
        ("linux.sysctl", {"net.ipv4.no_such_name": "1"}),
    ],
)
def test_a_configuration_with_a_field_that_is_wrong(container: Container, path: str, value: Any) -> None:
    broken(container.config, path, value)
    done = container.try_create()
    assert done.returncode != 0
    assert done.stderr
    assert not container.exists


def test_a_hostname_without_a_namespace_for_it(container: Container) -> None:
    """It would be the host's that changes."""
    container.linux["namespaces"] = [one for one in container.linux["namespaces"] if one["type"] != "uts"]
    assert container.try_create().returncode != 0


def test_a_sysctl_without_a_namespace_for_it(container: Container) -> None:
    container.linux["namespaces"] = [one for one in container.linux["namespaces"] if one["type"] != "network"]
    container.config["mounts"] = [one for one in container.config["mounts"] if one["type"] != "sysfs"]
    container.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    assert container.try_create().returncode != 0


@pytest.mark.parametrize("verb", ["create", "run"])
@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program"])
def test_a_program_that_is_missing(container: Container, verb: str, program: str) -> None:
    done = container.args(program).try_create(verb=verb)
    if done.returncode == 0:
        done = container("start")
    assert done.returncode != 0
    text = done.stderr.lower()
    assert "executable file not found" in text or "no such file or directory" in text


@pytest.mark.parametrize(
    "program", ["/etc/passwd", pytest.param("/etc", marks=pytest.mark.differs("crun", "1.8 says EPERM"))]
)
def test_a_program_that_may_not_be_executed(container: Container, program: str) -> None:
    done = container.args(program).run()
    assert done.returncode != 0
    assert "permission denied" in done.stderr.lower() or "is a directory" in done.stderr.lower()


def test_a_program_without_an_interpreter(container: Container, root: Path) -> None:
    (root / "etc/script").write_text("#!/no/such/interpreter\n")
    (root / "etc/script").chmod(0o755)
    done = container.args("/etc/script").run()
    assert done.returncode != 0
    assert "no such file or directory" in done.stderr.lower()


def test_a_program_that_is_none(container: Container, root: Path) -> None:
    (root / "etc/rubbish").write_text("\0\0\0\0")
    (root / "etc/rubbish").chmod(0o755)
    done = container.args("/etc/rubbish").run()
    assert done.returncode != 0
    assert "exec format error" in done.stderr.lower()


def test_a_create_that_fails_leaves_no_cgroup_and_no_process(container: Container) -> None:
    """Nor anything else: the fixtures look."""
    container.mount("/mnt", "bind", "/no/such/source", "bind")
    assert container.try_create().returncode != 0
    assert container.runtime("list", "--quiet").stdout == ""


def test_the_id_is_free_after_a_create_that_failed(container: Container) -> None:
    container.mount("/mnt", "bind", "/no/such/source", "bind")
    assert container.try_create().returncode != 0
    container.config["mounts"].pop()
    assert container.create().status() == "created"


@OTHER_WORDS
def test_the_log_is_json_on_demand(runtime: Runtime, tmp_path: Path) -> None:
    """The last line of level "error" is what docker's user is shown."""
    log = tmp_path / "log"
    done = runtime("--log", log, "--log-format", "json", "state", "nobody")
    assert done.returncode != 0
    last = [json.loads(line) for line in log.read_text().splitlines()][-1]
    assert last["level"] == "error"
    assert "does not exist" in last["msg"]
    datetime.fromisoformat(last["time"])


@OTHER_WORDS
def test_the_log_is_text_otherwise(runtime: Runtime, tmp_path: Path) -> None:
    runtime("--log", tmp_path / "log", "state", "nobody")
    assert "does not exist" in (tmp_path / "log").read_text()


def test_the_log_is_appended_to(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"level": "info", "msg": "of an earlier call"}\n')
    runtime("--log", tmp_path / "log", "--log-format", "json", "state", "nobody")
    levels = [json.loads(line)["level"] for line in (tmp_path / "log").read_text().splitlines()]
    assert levels[0] == "info"
    assert levels[-1] == "error"


def test_an_error_inside_the_container_is_logged(container: Container, tmp_path: Path) -> None:
    log = tmp_path / "log"
    container.args("no-such-program").write()
    words = ("--log", log, "--log-format", "json", "run", "--bundle", container.bundle, container.name)
    assert container.runtime(*words).returncode != 0
    assert any("no-such-program" in json.loads(line)["msg"] for line in log.read_text().splitlines())


def test_success_logs_no_error(container: Container, tmp_path: Path) -> None:
    log = tmp_path / "log"
    container.args("true").write()
    words = ("--log", log, "--log-format", "json", "run", "--bundle", container.bundle, container.name)
    assert container.runtime(*words).returncode == 0
    lines = log.read_text().splitlines() if log.exists() else []
    assert not [line for line in lines if json.loads(line)["level"] == "error"]
