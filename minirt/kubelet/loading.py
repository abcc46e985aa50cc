"""A manifest from a file to a Pod: read, held against the types, checked, or refused with everything that is wrong."""

import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from minirt.errors import InvalidInput, Unsupported
from minirt.kubelet import checks, document, schema
from minirt.kubelet.document import Document, Problem
from minirt.kubelet.manifest import Pod
from minirt.kubelet.quantity import Quantity

_PREDICATES = ("is ", "has ", "should ", "must ", "excludes ")
"""What a reason begins with that has the field itself as its subject; another reason comes after a colon."""


def load(path: Path | Literal["-"], warn: Callable[[str], None] = lambda _: None) -> Pod:
    """Return the Pod in a file (``-``: on standard input), with a fresh uid if it has none.

    ``warn`` is told of fields that mean nothing here.

    Raises:
        InvalidInput: it cannot be read, or is not a Pod; the message names the fields and their lines.
        Unsupported: all that is wrong is that it asks for what this version does not do.
    """
    name = "the manifest on standard input" if path == "-" else str(path)
    return loads(_text(path, name), name, warn)


def loads(text: str, name: str, warn: Callable[[str], None] = lambda _: None) -> Pod:
    """Return the Pod in ``text``; ``name`` is how errors call it. Raises as ``load`` does."""
    source = document.parse(text, name)
    _require_pod(source)
    found = list(schema.problems(source.value, lambda field, said: warn(f"{source.where(field)} {said}")))
    if found:
        raise _refusal(source, found)
    pod = schema.convert(source.value)
    if isinstance(pod, Problem):
        raise _refusal(source, [pod])
    if found := list(checks.problems(pod)):
        raise _refusal(source, found)
    return pod if pod.uid else _with_uid(pod, str(uuid.uuid4()))


def dumps(pod: Pod) -> str:
    """Return a pod as JSON that ``loads`` reads back."""
    return msgspec.json.encode(pod, enc_hook=_plain).decode()


def _plain(value: Any) -> str:
    if isinstance(value, Quantity):
        return value.text
    raise NotImplementedError(type(value))


def _with_uid(pod: Pod, uid: str) -> Pod:
    return msgspec.structs.replace(pod, metadata=msgspec.structs.replace(pod.metadata, uid=uid))


def _text(path: Path | Literal["-"], name: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else path.read_text()
    except OSError as error:
        raise InvalidInput(f"read {name}", error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"read {name}", f"it is not UTF-8 at byte {error.start}") from error


def _require_pod(source: Document) -> None:
    """Raise if the document is of another kind: complaints about its fields would make no sense."""
    what = f"use {source.name}"
    if not isinstance(source.value, dict):
        raise InvalidInput(what, "it is not a mapping", "write a Pod: apiVersion: v1, kind: Pod, …")
    kind, version = source.value.get("kind"), source.value.get("apiVersion")
    if kind is None or version is None:
        missing = "kind" if kind is None else "apiVersion"
        raise InvalidInput(what, f"{missing} is missing", "it begins with apiVersion: v1 and kind: Pod")
    if (version, kind) != ("v1", "Pod"):
        why = f"{source.where('kind')} is {kind} of {version}, and minirt runs Pods of v1"
        raise Unsupported(what, why, "take the pod out of its template")


def _refusal(source: Document, problems: list[Problem]) -> InvalidInput:
    kind = Unsupported if all(problem.unsupported for problem in problems) else InvalidInput
    what = f"use {source.name}"
    if len(problems) == 1:
        only = problems[0]
        return kind(what, _sentence(source, only), only.do)
    remedies = (f"; {problem.do}" if problem.do else "" for problem in problems)
    lines = [f"\n  {_sentence(source, problem)}{do}" for problem, do in zip(problems, remedies, strict=True)]
    return kind(what, f"{len(problems)} things in it are wrong" + "".join(lines))


def _sentence(source: Document, problem: Problem) -> str:
    is_predicate = problem.why.startswith(_PREDICATES)
    return f"{source.where(problem.path)}{'' if is_predicate else ':'} {problem.why}"
