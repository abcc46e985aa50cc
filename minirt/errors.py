"""Every error minirt raises on purpose: what failed, why, and what to do.

    MinirtError                     exit code 125
    ├── InvalidInput                the user's words: a flag, a manifest, a name, a spec
    │   └── Unsupported             understood, and not offered (refused by name, never ignored)
    ├── NotFound                    no such container, pod, image
    ├── Conflict                    its state does not allow this
    │   └── AlreadyExists           there is one of this name
    ├── TimedOut                    it took longer than the caller allowed
    ├── StepFailed                  the kernel refused an operation (carries errno, stage, operation)
    │   ├── CommandNotFound         exit code 127
    │   └── NotExecutable           exit code 126
    ├── ControllerMissing           the kernel offers no such cgroup v2 controller
    ├── ImageError
    │   ├── RegistryError           the registry, or the way to it
    │   ├── DigestMismatch          bytes are not what their digest promised
    │   └── HostileLayer            a layer that reaches outside of itself, or would fill the disk
    ├── NetworkError                bridge, addresses, nftables
    └── ShimError                   the sandbox's shim is dead or speaks another version

An error crosses a process boundary as a dict (``to_wire``) and is raised on the other side as itself (``from_wire``).
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, ClassVar


class MinirtError(Exception):
    """An error with its remedy: ``cannot <what>: <why> (<do>)``."""

    exit_code: ClassVar[int] = 125
    shown: str = ""
    """Lines that the command line shows below the message: where in the user's words the fault is."""

    def __init__(self, what: str, why: str, do: str = "") -> None:
        super().__init__(what, why, do)
        self.what = what
        self.why = why
        self.do = do

    def __str__(self) -> str:
        remedy = f" ({self.do})" if self.do else ""
        return f"cannot {self.what}: {self.why}{remedy}"

    def to_wire(self) -> dict[str, Any]:
        """Return the error as plain data, for a socket or a state file."""
        return {"class": type(self).__name__, "what": self.what, "why": self.why, "do": self.do}


class InvalidInput(MinirtError):
    """The user's words are at fault: a flag, a manifest, a name, a spec."""


@contextlib.contextmanager
def asked_by(field: str) -> Iterator[None]:
    """Have input that is refused in the block name the ``field`` of the document that it is from."""
    try:
        yield
    except InvalidInput as error:
        if field in str(error):
            raise
        raise type(error)(f"{error.what}, as {field} asks", error.why, error.do) from error


class Unsupported(InvalidInput):
    """Understood, and not offered by this version."""


class NotFound(MinirtError):
    """There is no such container, pod, image, or file."""


class Conflict(MinirtError):
    """It exists already, or its state does not allow this now."""


class AlreadyExists(Conflict):
    """There is one of this name already."""


class TimedOut(MinirtError):
    """It took longer than its caller allowed, and was ended."""


class StepFailed(MinirtError):
    """The kernel refused an operation."""

    def __init__(self, what: str, why: str, do: str = "", *, errno: int = 0, stage: str = "", step: str = "") -> None:
        super().__init__(what, why, do)
        self.errno = errno
        self.stage = stage
        self.step = step

    @classmethod
    def from_os_error(cls, what: str, error: OSError, *, stage: str = "", step: str = "", do: str = "") -> "StepFailed":
        """Return ``error`` as a StepFailed that says what was being done."""
        number = error.errno or 0
        name = f" on {error.filename}" if error.filename else ""
        why = (error.strerror or (os.strerror(number) if number else str(error))) + name
        return cls(what, why, do, errno=number, stage=stage, step=step)

    def to_wire(self) -> dict[str, Any]:
        """Return the error as plain data, with errno, stage and step."""
        return super().to_wire() | {"errno": self.errno, "stage": self.stage, "step": self.step}


class CommandNotFound(StepFailed):
    """The container's command does not exist in its file system (docker's exit code 127)."""

    exit_code = 127


class NotExecutable(StepFailed):
    """The container's command exists and cannot be executed (docker's exit code 126)."""

    exit_code = 126


class ControllerMissing(MinirtError):
    """The kernel offers no such cgroup v2 controller."""


class ImageError(MinirtError):
    """An image cannot be pulled, read, stored or unpacked."""


class RegistryError(ImageError):
    """The registry refused, or could not be reached."""


class DigestMismatch(ImageError):
    """Bytes are not what their digest promised."""


class HostileLayer(ImageError):
    """A layer holds an entry that reaches outside of the layer, or is made to inflate until the disk is full."""


class NetworkError(MinirtError):
    """A network cannot be built or taken down."""


class ShimError(MinirtError):
    """The sandbox's shim is dead, or speaks another version of the protocol."""


@contextlib.contextmanager
def raised_as_step(what: str) -> Iterator[None]:
    """Raise an OSError of the block, a full disk for one, as the StepFailed that says what was being done."""
    try:
        yield
    except OSError as error:
        raise StepFailed.from_os_error(what, error) from error


def from_wire(data: dict[str, Any]) -> MinirtError:
    """Return the error that ``to_wire`` made; an unknown class becomes its nearest known base."""
    kind = _classes().get(data.get("class", ""), MinirtError)
    what, why, do = data.get("what", "?"), data.get("why", "?"), data.get("do", "")
    if issubclass(kind, StepFailed):
        return kind(what, why, do, errno=data.get("errno", 0), stage=data.get("stage", ""), step=data.get("step", ""))
    return kind(what, why, do)


def _classes() -> dict[str, type[MinirtError]]:
    found: dict[str, type[MinirtError]] = {}
    waiting: list[type[MinirtError]] = [MinirtError]
    while waiting:
        kind = waiting.pop()
        found[kind.__name__] = kind
        waiting += kind.__subclasses__()
    return found
