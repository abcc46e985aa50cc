"""``minirt pod run`` and ``start``: a pod worker in this process, or in one of its own (-d)."""

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec

from minirt.cli import podview
from minirt.engine.face import EngineFace
from minirt.engine.records import SandboxRecord
from minirt.errors import Conflict, MinirtError, StepFailed, from_wire
from minirt.kubelet import events, loading, logs, node, preflight, requests, workers
from minirt.kubelet.backoff import Backoff
from minirt.kubelet.events import Event
from minirt.kubelet.manifest import Pod
from minirt.kubelet.worker import PodWorker
from minirt.linux import fds
from minirt.shim.zygote import Zygote

Options = dict[str, Any]


def load(manifest: str) -> Pod:
    """Return the pod of a manifest file (``-``: stdin), its warnings shown.

    Raises:
        InvalidInput: the manifest.
        Conflict: a pod of this name and namespace exists.
    """
    pod = loading.load("-" if manifest == "-" else Path(manifest), podview.warn)
    for record in workers.sandboxes_of(_full_name(pod)):
        raise _exists(record)
    return pod


def _full_name(pod: Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.metadata.name}"


def _exists(record: SandboxRecord) -> Conflict:
    name = record.config.name
    do = f"minirt pod stop {name}" if workers.find(record.config.uid) else f"minirt pod start {name}, or pod rm {name}"
    return Conflict(f"run the pod {name}", "a pod of this name exists", do)


def check_limits(pod: Pod, *, best_effort: bool) -> None:
    """Refuse limits that this machine cannot keep, or with ``best_effort`` warn of them.

    Raises:
        ControllerMissing: the first of them.
    """
    problems = preflight.problems(pod, node.here())
    if problems and not best_effort:
        raise problems[0]
    for (why, do), alike in _grouped(problems).items():
        podview.warn(f"cannot {', '.join(alike)}: {why} ({do})")


def _grouped(problems: list[MinirtError]) -> dict[tuple[str, str], list[str]]:
    """Return what cannot be done, by the reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        found.setdefault((problem.why, problem.do), []).append(problem.what)
    return found


def in_foreground(zygote: Zygote, pod: Pod, options: Options) -> int:
    """Run the pod here: progress, then logs, until it is done or Ctrl-C; then nothing is left of it."""
    worker = _worker(zygote, pod, options, podview.Progress(pod).show, fail_fast=True)
    with workers.Registration(pod.uid, _full_name(pod)), _stopping_on_signals(worker):
        try:
            with _following_logs(pod):
                return worker.run()
        finally:
            if not options["keep"]:
                worker.remove()
                _remove_logs(pod)


def _worker(zygote: Zygote, pod: Pod, options: Options, observer: events.Observer, *, fail_fast: bool) -> PodWorker:
    gc.freeze()  # a worker lives as long as its pod; what it has imported is no garbage
    gc.enable()
    face = EngineFace(zygote, trace=options["trace"], best_effort=options["best_effort_limits"])
    backoff = Backoff(cap_s=options["backoff_cap"]) if options["backoff_cap"] else Backoff()
    return PodWorker(face, pod, observer=observer, backoff=backoff, fail_fast=fail_fast)


@contextlib.contextmanager
def _stopping_on_signals(worker: PodWorker) -> Iterator[None]:
    """Stop the pod on Ctrl-C, SIGTERM or a closed terminal; the second Ctrl-C is Python's own."""

    def stop(number: int, _: object) -> None:
        if number == signal.SIGINT:
            click.echo("\nStopping… (Ctrl-C again to leave it as it is)", err=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        worker.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _following_logs(pod: Pod) -> Iterator[None]:
    """Show what the containers write, while the block runs and until all of it has been shown."""
    over = threading.Event()
    prefix = podview.Prefix([container.name for container in pod.all_containers])

    def show() -> None:
        try:
            for line in logs.follow(requests.log_directory(pod), prefix.names, over):
                click.echo(prefix.of(line) + line.text)
        except BrokenPipeError:  # whoever read has gone, and the pod goes on; what is buffered still goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())

    thread = threading.Thread(target=show, name="logs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def detached(zygote: Zygote, pod: Pod, options: Options, *, adopt: bool = False) -> int:
    """Leave a worker process that runs the pod; return once every container has been started, or with the error.

    The zygote goes with the worker: it was made first, and has imported while this process did.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    if os.fork() == 0:
        os.close(read)
        _daemon(zygote, pod, options, write, adopt=adopt)
    zygote.leave_to_child()
    os.close(write)
    progress = podview.Progress(pod)
    with os.fdopen(read) as reports:
        for line in reports:
            report = msgspec.json.decode(line)
            if "error" in report:
                raise from_wire(report["error"])
            if "event" in report:
                progress.show(Event(**report["event"]))
            if "up" in report:
                click.echo(pod.metadata.name)
                return 0
    raise MinirtError(
        f"run the pod {pod.metadata.name}", "its worker ended unexpectedly", f"see {workers.log_file(pod.uid)}"
    )


def _daemon(zygote: Zygote, pod: Pod, options: Options, write: int, *, adopt: bool) -> NoReturn:
    """Be the pod's worker process."""
    code = 125
    reports = _Reports(pod, write)
    try:
        os.setsid()
        workers.log_file(pod.uid).parent.mkdir(parents=True, exist_ok=True)
        log = os.open(workers.log_file(pod.uid), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for number, fd in enumerate((null, log, log)):
            os.dup2(fd, number)
        fds.close_all_but({0, 1, 2, write, zygote.fileno()})
        code = _work(zygote, pod, options, reports, adopt=adopt)
    except BaseException as error:  # noqa: BLE001  a fork must never return into its parent's code
        if isinstance(error, OSError) and reports.heard:
            reports.fail(StepFailed.from_os_error(f"run the pod {pod.metadata.name}", error))
        else:
            import traceback

            traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


class _Reports:
    """What the worker process tells the command line that waits for it."""

    def __init__(self, pod: Pod, write: int) -> None:
        self._write: int | None = write
        self._waiting = {container.name for container in pod.spec.containers}
        self.settled: Callable[[], None] = lambda: None

    def show(self, event: Event) -> None:
        fields = {name: getattr(event, name) for name in event.__struct_fields__}
        self.say({"event": {name: value for name, value in fields.items() if value is not None}})
        if event.reason == "Started":
            self._waiting.discard(event.container)
            if not self._waiting:
                self.up()

    def up(self) -> None:
        """Say that every container has been started."""
        self.say({"up": True})
        self.close()
        self.settled()

    @property
    def heard(self) -> bool:
        """Say whether somebody waits for it."""
        return self._write is not None

    def fail(self, error: MinirtError) -> None:
        """Say that it came to nothing."""
        self.say({"error": error.to_wire()})

    def say(self, report: dict[str, Any]) -> None:
        if self._write is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._write, msgspec.json.encode(report) + b"\n")

    def close(self) -> None:
        if self._write is not None:
            os.close(self._write)
            self._write = None


def _work(zygote: Zygote, pod: Pod, options: Options, reports: _Reports, *, adopt: bool) -> int:
    worker = _worker(zygote, pod, options, reports.show, fail_fast=not adopt)
    reports.settled = worker.keep_trying
    try:
        with workers.Registration(pod.uid, _full_name(pod)), _stopping_on_signals(worker):
            if adopt:
                reports.up()
            code = worker.run() if adopt else _run_or_remove(worker, pod)
    except MinirtError as error:
        reports.fail(error)
        if not adopt:
            workers.log_file(pod.uid).unlink(missing_ok=True)  # there is no such pod
        return error.exit_code
    reports.up()
    return code


def _run_or_remove(worker: PodWorker, pod: Pod) -> int:
    try:
        return worker.run()
    except (MinirtError, OSError):
        worker.remove()
        _remove_logs(pod)
        raise


def _remove_logs(pod: Pod) -> None:
    import shutil  # for removals only: 2 ms

    shutil.rmtree(requests.log_directory(pod), ignore_errors=True)
