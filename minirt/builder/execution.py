"""A Dockerfile becomes an image: stage by stage, instruction by instruction, each that changes files making a layer.

    FROM         a stage's settings and layers: another stage's, an image's, or none
    RUN          a container of the stage so far; the upper directory of its overlay becomes the layer
    COPY ADD     the overlay of the stage so far, mounted nowhere; files are copied into it
    the others   settings

Stages that the target does not need are not built. A layer that was made before, by the same instruction on the same
layers from the same files, is taken from the cache. A stage that is only copied from stays as an image without a name,
so that its layers are still there for the next build.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from msgspec import Struct

from minirt.builder import cache, copying, stage
from minirt.builder.cache import Cache, Made
from minirt.builder.dockerfile import Dockerfile, Instruction
from minirt.builder.files import Source
from minirt.builder.ignore import Ignore
from minirt.builder.plan import Plan
from minirt.builder.settings import SETTINGS, Settings
from minirt.builder.stage import Stage
from minirt.engine import images, sandboxes
from minirt.errors import InvalidInput, MinirtError, StepFailed, Unsupported
from minirt.images.blobs import Blobs
from minirt.images.image import Image, Platform
from minirt.images.layer import commit
from minirt.images.snapshots import Overlay, Snapshots
from minirt.images.store import ImageStore
from minirt.images.workspace import Workspace, workspace
from minirt.linux import fds

SCRATCH = "scratch"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
"""Arguments that need no ARG, and are in no image and no key, as in docker; in lower case too."""


class Runner(Protocol):
    """Runs a command in a container; the block gets its exit code and its overlay, which ends with the block."""

    def __call__(
        self, image: Image, command: tuple[str, ...], env: Mapping[str, str], network: str
    ) -> AbstractContextManager[tuple[int, Overlay]]:
        """Run it to its end."""
        ...


class Options(Struct, frozen=True):
    """How to build. ``arguments`` are those of --build-arg, ``policy`` that of pulling (missing, always)."""

    names: tuple[str, ...] = ()
    target: str = ""
    arguments: dict[str, str] = {}
    cached: bool = True
    policy: str = "missing"


class Surroundings(NamedTuple):
    """What a build uses: who runs commands, where lines of progress go, and who shows a pull."""

    run: Runner
    say: Callable[[str], None]
    showing: images.Showing


def build(file: Dockerfile, context: Path, ignore: Ignore, options: Options, around: Surroundings) -> Image:
    """Build an image, and return it.

    Raises:
        InvalidInput: the Dockerfile, its line is in the message; Unsupported among it.
        StepFailed: a command did not succeed.
        ImageError: an image cannot be pulled; disk full.
    """
    store = ImageStore()
    with contextlib.ExitStack() as held:
        try:
            context_fd = held.enter_context(fds.closing(os.open(context, os.O_RDONLY | os.O_DIRECTORY)))
        except OSError as error:
            raise InvalidInput(f"build {context}", error.strerror or str(error), "name a directory") from error
        job = held.enter_context(workspace(store.root))
        return _Build(file, Source(context_fd, ignore), options, around, store, job).run()


class _Build:
    """One build at work."""

    def __init__(
        self,
        file: Dockerfile,
        context: Source,
        options: Options,
        around: Surroundings,
        store: ImageStore,
        job: Workspace,
    ) -> None:
        self._context = context
        self._options = options
        self._around = around
        self._store = store
        self._job = job
        self._cache = Cache(store.root)
        self._snapshots = Snapshots(store.root)
        self._platform = Platform.host()
        self._plan = Plan(file, options.arguments, self._platform)
        self._used = set(self._plan.used)
        self._stages: list[Stage | None] = []

    def run(self) -> Image:
        """Build the stages that are needed; return the image of the last one."""
        target = self._plan.target(self._options.target)
        needed = self._plan.needed(target)
        self._total = sum(len(self._plan.stages[one]) for one in needed)
        self._step = 0
        for index in range(target + 1):
            self._stages.append(self._stage(self._plan.stages[index]) if index in needed else None)
            made = self._stages[-1]
            if made and index != target:
                self._keep(made)
        if unused := sorted(self._options.arguments.keys() - self._used - _proxies()):
            self._around.say(f"warning: no ARG asks for {', '.join(unused)}")
        last = self._stages[-1]
        assert last
        return self._store.add(last.config(), last.layers, list(self._options.names), self._job)

    def _stage(self, plan: list[Instruction]) -> Stage:
        first, *rest = plan
        self._announce(first)
        made = self._base(first)
        for one in rest:
            self._announce(one)
            if one.keyword == "ARG":
                self._used |= set(made.settings.argue(one, self._global_for(one) | self._options.arguments))
                self._settle(made, one)
            elif one.keyword == "RUN":
                self._command(made, one)
            elif one.keyword in ("COPY", "ADD"):
                self._copy(made, one)
            else:
                assert one.keyword in SETTINGS
                self._set(made, one)
        return made

    def _announce(self, one: Instruction) -> None:
        self._step += 1
        self._around.say(f"Step {self._step}/{self._total} : {one.source}")

    def _global_for(self, one: Instruction) -> dict[str, str]:
        """Return the global arguments that an ARG without a value takes over."""
        names = {part for part in one.text.split() if "=" not in part}
        return {name: value for name, value in self._plan.arguments.items() if name in names}

    def _base(self, one: Instruction) -> Stage:
        base, name = self._plan.base(one), self._plan.name(one)
        if base.lower() == SCRATCH:
            return Stage(Settings.scratch(self._platform, self._plan.escape), [], name, SCRATCH)
        index = self._plan.find(base, len(self._stages))
        if index is not None:
            before = self._stages[index]
            assert before
            document = json_document(before.config())
            made = Stage(Settings(document, self._plan.escape), before.layers, name, before.key)
        else:
            made = self._of_image(self._image(base, one), name)
        if made.settings.run.get("OnBuild"):
            raise Unsupported(f"build line {one.line} (FROM)", f"{base} has ONBUILD instructions", "write them out")
        return made

    def _image(self, name: str, one: Instruction) -> Image:
        """Return an image, pulled if need be, for the platform that is asked for."""
        found = images.ensure(name, self._options.policy, self._around.showing)
        text = self._plan.expand(one.flags.get("platform", ""))
        if text and not Platform.parse(text).runs(found.platform):
            with self._around.showing(name) as report:
                found = self._store.pull(name, platform=text, progress=report)
        return found

    def _of_image(self, found: Image, name: str) -> Stage:
        document = json_document(Blobs(self._store.root).read(found.id))
        layers = self._store.layers(found.id)
        made = Stage(Settings(document, self._plan.escape), layers, name, found.id)
        self._job.lease([*(layer.digest for layer in layers), *made.chain])
        return made

    def _set(self, made: Stage, one: Instruction) -> None:
        """Do an instruction that sets something; a working directory is made, too."""
        try:
            made.settings.apply(one)
        except InvalidInput as error:
            raise _located(error, one) from error
        if one.keyword == "WORKDIR":
            path = made.settings.working_dir

            def make(overlay_fd: int) -> None:
                copying.make_directory(overlay_fd, path, one)

            with self._merged(made) as (fd, _):
                is_there = copying.is_directory(fd, path)
            if not is_there:
                return self._layer(made, one, cache.key(made.key, "WORKDIR", path), lambda: self._changed(made, make))
        return self._settle(made, one)

    def _settle(self, made: Stage, one: Instruction) -> None:
        """Note an instruction that made no layer."""
        key = cache.key(made.key, one.keyword, made.config_text())
        found = self._known(key) or Made(stage.now())
        self._cache.put(key, found)
        made.add(one.source, found)
        made.key = key

    def _known(self, key: str) -> Made | None:
        return self._cache.get(key, self._job) if self._options.cached else None

    def _command(self, made: Stage, one: Instruction) -> None:
        settings = made.settings
        command = settings.command(one)
        declared = {name: value for name, value in settings.arguments.items() if name not in settings.env}
        network = settings.expand(one.flags.get("network", ""))
        if network not in ("", "default", "none", "host"):
            raise one.fault(f"--network={network} is none", "it is default, none or host")
        texts = [f"{key}={value}" for key, value in sorted(declared.items())]
        key = cache.key(made.key, "RUN", *command, "", network, made.config_text(), *texts)
        given = self._options.arguments
        env = {name: given[name] for name in given if name in _proxies()} | declared

        def make() -> Made:
            with self._around.run(made.image(), command, env, network) as (code, overlay):
                if code:
                    why = f"{one.text[:80]!r} ended with exit code {code}"
                    raise StepFailed(f"build line {one.line} (RUN)", why, "its output is above")
                return Made(stage.now(), commit(overlay.upper, self._job, overlay.lowers[0]))

        self._layer(made, one, key, make)

    def _copy(self, made: Stage, one: Instruction) -> None:
        """Do a COPY or an ADD."""
        try:
            asked = copying.read(one, made.settings)
        except InvalidInput as error:
            raise _located(error, one) from error
        with self._source(made, asked.source, one) as source:
            found = copying.find(asked, source, one)
            owner = (asked.owner, "" if asked.mode is None else oct(asked.mode), asked.target)
            key = cache.key(made.key, one.keyword, source.digest(found), *owner, *map(os.path.basename, found))

            def change(overlay_fd: int, lowers: tuple[Path, ...]) -> None:
                copying.carry_out(asked, found, source, overlay_fd, lowers, self._job, one)

            def make() -> Made:
                with self._merged(made) as (fd, overlay):
                    change(fd, overlay.lowers)
                    return self._committed(overlay)

            self._layer(made, one, key, make)

    @contextlib.contextmanager
    def _source(self, made: Stage, name: str, one: Instruction) -> Iterator[Source]:
        """Open what is copied from: the build's directory, a stage before, or an image."""
        if not name:
            yield self._context
            return
        index = self._plan.find(name, len(self._stages))
        other = self._stages[index] if index is not None else None
        if other is None:
            other = self._of_image(self._image(name, one), "")
        with self._merged(other) as (fd, _):
            yield Source(fd, keeps_owners=True)

    def _changed(self, made: Stage, change: Callable[[int], None]) -> Made:
        with self._merged(made) as (fd, overlay):
            change(fd)
            return self._committed(overlay)

    def _committed(self, overlay: Overlay) -> Made:
        return Made(stage.now(), commit(overlay.upper, self._job, overlay.lowers[0]))

    @contextlib.contextmanager
    def _merged(self, made: Stage) -> Iterator[tuple[int, Overlay]]:
        """Mount a stage's layers, with an upper one that ends with the block, nowhere: there is but a descriptor."""
        from minirt.namespaces.rootfs import MountOverlay

        key = f"build-{sandboxes.new_id()[:16]}"
        overlay = self._snapshots.prepare(key, made.image())
        try:
            lowers = tuple(map(str, overlay.lowers))
            operation = MountOverlay(lowers, str(overlay.upper), str(overlay.work), "nowhere")
            with fds.closing(operation.prepare()) as fd:
                yield fd, overlay
        finally:
            self._snapshots.remove(key)

    def _layer(self, made: Stage, one: Instruction, key: str, make: Callable[[], Made]) -> None:
        """Put a layer on a stage: the one that ``key`` has made before, or a new one."""
        found = self._known(key)
        if found:
            self._around.say(" ---> Using cache")
        else:
            try:
                found = make()
            except (InvalidInput, StepFailed) as error:
                raise _located(error, one) from error
            self._cache.put(key, found)
        made.add(one.source, found)
        made.key = key
        assert found.layer
        chain = made.chain
        self._job.lease([found.layer.descriptor.digest, *chain])
        blob = Blobs(self._store.root).path(found.layer.descriptor.digest)
        self._snapshots.unpack(blob, found.layer.diff_id, chain, self._job)

    def _keep(self, made: Stage) -> None:
        """Keep a stage as an image without a name, unless there is one with just these layers."""
        is_kept = any(list(image.diff_ids) == made.diff_ids for image in self._store.list())
        if len(made.layers) > made.inherited and not is_kept:
            self._store.add(made.config(), made.layers, [], self._job)


def _proxies() -> set[str]:
    return {*PROXIES, *(name.lower() for name in PROXIES)}


def _located(error: MinirtError, one: Instruction) -> MinirtError:
    """Return an error about a word, or a command, with the line it stands on."""
    if error.what.startswith("build line"):
        return error
    return one.fault(f"cannot {error.what}: {error.why}", error.do)


def json_document(data: bytes) -> "dict[str, object]":
    """Return a config as the JSON object it is."""
    import json

    found = json.loads(data)
    assert isinstance(found, dict)
    return found
