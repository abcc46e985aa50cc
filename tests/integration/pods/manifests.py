"""Pod manifests for tests, as YAML files, and the pods that ``minirt pod run`` makes of them."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.command import Minirt
from tests.integration.lifecycle.watching import started

IMAGE = "localhost/busybox"
WORK: dict[str, Any] = {"volumes": [{"name": "work", "emptyDir": {}}]}
MOUNTED: dict[str, Any] = {"volumeMounts": [{"name": "work", "mountPath": "/work"}]}
HELD = "until [ -e /work/go ]; do sleep 0.02; done"
"""Wait for a file of the volume "work"."""


def container(name: str, script: str, **fields: Any) -> dict[str, Any]:
    """Return a container of busybox that runs a shell script; its ``$$`` is not for Kubernetes to expand."""
    command = ["sh", "-euc", script.replace("$$", "$$$$")]
    return {"name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": command} | fields


def manifest(*containers: dict[str, Any], name: str = "web", **spec: Any) -> dict[str, Any]:
    """Return a pod that is not restarted and gets two seconds to end, unless ``spec`` says otherwise."""
    usual = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 2, "containers": list(containers)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": usual | spec}


@dataclass(frozen=True)
class Pods:
    """minirt's pods, from manifests that lie in ``directory``."""

    minirt: Minirt
    directory: Path

    def write(self, pod: dict[str, Any] | str) -> Path:
        """Write a manifest to a file; text is written as it is."""
        path = self.directory / "pod.yaml"
        path.write_text(pod if isinstance(pod, str) else yaml.safe_dump(pod, sort_keys=False))
        return path

    def run(self, pod: dict[str, Any] | str, *flags: str) -> "subprocess.CompletedProcess[str]":
        """Run a pod in the foreground to its end."""
        return self.minirt("pod", "run", *flags, self.write(pod))

    def said(self, pod: dict[str, Any]) -> dict[str, list[str]]:
        """Run a pod that must succeed; return the lines of each container."""
        done = self.run(pod)
        assert done.returncode == 0, done.stderr + done.stdout
        return by_container(done.stdout)

    def detached(self, pod: dict[str, Any], *flags: str) -> str:
        """Leave a pod running; return its name."""
        name = self.minirt.output("pod", "run", "-d", *flags, self.write(pod))
        assert name == pod["metadata"]["name"]
        return name

    @contextlib.contextmanager
    def beside(self, pod: dict[str, Any], *flags: str) -> Iterator["subprocess.Popen[str]"]:
        """Run a pod in the foreground beside the block."""
        with started(self.minirt, "pod", "run", *flags, self.write(pod)) as client:
            yield client

    def inspected(self, name: str = "web") -> dict[str, Any]:
        """Return what ``minirt pod inspect`` says."""
        found: dict[str, Any] = json.loads(self.minirt.output("pod", "inspect", name))[0]
        return found

    def row(self, name: str = "web") -> dict[str, str]:
        """Return a pod's row of ``minirt pod ps``."""
        head, *rows = (line.split("  ") for line in self.minirt.output("pod", "ps").splitlines())
        cells = [[cell.strip() for cell in row if cell.strip()] for row in (head, *rows)]
        return next(dict(zip(cells[0], row, strict=True)) for row in cells[1:] if row[0] == name)

    def volume(self, uid: str, name: str = "work") -> Path:
        """Return an emptyDir's place on the host."""
        return self.minirt.root / "volumes" / uid / name


def by_container(text: str) -> dict[str, list[str]]:
    """Return the lines of ``one | …`` by container; a pod of one container has its prefix, too."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, said = line.partition(" | ")
        found.setdefault(name.strip(), []).append(said)
    return found
