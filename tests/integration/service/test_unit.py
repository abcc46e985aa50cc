"""The systemd unit of examples/, started, killed, restarted and stopped by systemd (``vm/run --systemd``)."""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from minirt.cgroups import tree
from minirt.crimessages import api_pb2 as cri
from tests.command import COMMAND, Minirt
from tests.conftest import REPOSITORY
from tests.peers.cri import MODE, Pods, Runtime
from tests.peers.daemon import await_true, output, run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not tree.is_systemd(), reason="systemd: it is not PID 1"),
]
NAME = f"minirt-test-{os.getpid()}-serve.service"
UNIT = Path("/run/systemd/system") / NAME
NODES_NETWORK = cri.LinuxPodSandboxConfig(
    security_context=cri.LinuxSandboxSecurityContext(namespace_options=cri.NamespaceOption(network=MODE.NODE))
)


class Service(NamedTuple):
    """The unit, with places of this test's own."""

    socket: Path

    def main_pid(self) -> int:
        """Return the pid of the server, 0 while there is none."""
        return int(output("systemctl", "show", "--value", "--property", "MainPID", NAME))

    @contextlib.contextmanager
    def client(self, logs: Path) -> Iterator[Pods]:
        """Yield a client of the server that is there now."""
        with contextlib.closing(Runtime("minirt", self.socket)) as runtime:
            yield Pods(runtime, logs)


@pytest.fixture
def service(tmp_path: Path, busybox_store: Path) -> Iterator[Service]:
    minirt = Minirt(tmp_path / "root", tmp_path / "state")
    shutil.copytree(busybox_store, minirt.root, symlinks=True)
    socket = tmp_path / "minirt.sock"
    text = (REPOSITORY / "examples/systemd/minirt.service").read_text()
    assert text.count("/usr/local/bin/minirt serve --listen /run/minirt/minirt.sock") == 1
    text = text.replace("/usr/local/bin/minirt", str(COMMAND)).replace("/run/minirt/minirt.sock", str(socket))
    names = {key: value for key, value in minirt.env.items() if key.startswith("MINIRT_")}
    text = text.replace("[Service]\n", "".join(["[Service]\n", *(f"Environment={k}={v}\n" for k, v in names.items())]))
    UNIT.write_text(text)
    output("systemctl", "daemon-reload")
    output("systemctl", "start", NAME)
    yield Service(socket)
    run("systemctl", "stop", NAME)
    UNIT.unlink()
    output("systemctl", "daemon-reload")


def test_the_service_comes_and_goes_and_pods_stay(service: Service, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    with service.client(tmp_path / "logs") as pods:
        sandbox = pods.run(hostname="", linux=NODES_NETWORK)
        container = pods.container(sandbox)
        words = pods.output(sandbox, "sh", "-c", "cat /proc/self/oom_score_adj; ulimit -Sn").split()
        assert words == ["0", output("systemctl", "show", "--value", "--property", "DefaultLimitNOFILESoft")]
        begun = pods.status(container).started_at
    first = service.main_pid()
    os.kill(first, signal.SIGKILL)
    await_true(lambda: service.main_pid() not in (0, first), "systemd to start it again")
    for words in (("restart",), ("stop", "start")):
        for word in words:
            output("systemctl", word, NAME)
        with service.client(tmp_path / "logs") as pods:
            assert pods.exec(container, "echo", "alive").stdout == b"alive\n"
            assert pods.status(container).started_at == begun
    with service.client(tmp_path / "logs") as pods:
        pods.stop(sandbox)
        pods.remove(sandbox)
        assert pods.sandboxes() == []
    assert "failed" not in output("systemctl", "show", "--value", "--property", "ActiveState", NAME)
