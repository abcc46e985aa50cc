"""A document held against the manifest's types: unknown fields, refused fields, words that are not in a choice.

msgspec checks the types; what it cannot say (did you mean …, not supported yet, one of …) is found here by walking the
document along the types before it is converted.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec
from msgspec import Struct
from msgspec.inspect import LiteralType, StructType, Type, UnionType, VarTupleType, type_info

from minirt import decoding
from minirt.kubelet import refusals
from minirt.kubelet.document import Problem
from minirt.kubelet.manifest import Pod
from minirt.kubelet.quantity import Quantity

Warn = Callable[[str, str], None]
"""Called with a path and what is said about it."""


def problems(value: Any, warn: Warn) -> Iterator[Problem]:
    """Yield what is wrong with the names and choices of a document that is to be a Pod."""
    return _check(type_info(Pod), value, "", warn)


def convert(value: Any) -> Pod | Problem:
    """Return the Pod that a document is, or what keeps it from being one.

    An absent value and a null one are the same, as they are to Kubernetes.
    """
    try:
        return decoding.convert(_without_nulls(value), Pod, dec_hook=_quantity)
    except msgspec.ValidationError as error:
        return _as_problem(str(error))


def _quantity(kind: type, value: Any) -> Any:
    if kind is Quantity:
        return Quantity.parse(value)
    raise NotImplementedError(kind)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _check(kind: Type, value: Any, path: str, warn: Warn) -> Iterator[Problem]:
    match kind:
        case StructType() if isinstance(value, dict):
            yield from _check_fields(kind, value, path, warn)
        case VarTupleType() if isinstance(value, list):
            for index, item in enumerate(value):
                yield from _check(kind.item_type, item, f"{path}[{index}]", warn)
        case UnionType():
            for one in kind.types:
                yield from _check(one, value, path, warn)
        case LiteralType() if isinstance(value, str) and value not in kind.values:
            choices = ", ".join(str(choice) or '""' for choice in kind.values)
            meant = _nearest(value, (str(choice) for choice in kind.values))
            yield Problem(path, f"{value!r} is none of {choices}", meant)


def _check_fields(kind: StructType, value: dict[Any, Any], path: str, warn: Warn) -> Iterator[Problem]:
    known = {field.encode_name: field.type for field in kind.fields}
    for name, item in value.items():
        below = f"{path}.{name}" if path else str(name)
        if item is None:
            continue
        if name in known:
            yield from _check(known[name], item, below, warn)
        else:
            yield from _check_unknown(kind.cls, str(name), set(known), below, warn)


def _check_unknown(of: type[Struct], name: str, known: set[str], path: str, warn: Warn) -> Iterator[Problem]:
    if name in refusals.refused(of):
        yield Problem(path, "is not supported yet by minirt", "remove it", unsupported=True)
    elif name in refusals.passed_over(of):
        warn(path, "means nothing outside of a cluster: passed over")
    elif name not in refusals.silent(of):
        everything = known | refusals.refused(of) | refusals.passed_over(of)
        yield Problem(path, "unknown field", _nearest(name, everything))


def _nearest(word: str, candidates: Any) -> str:
    by_lower = {candidate.lower(): candidate for candidate in candidates if candidate}
    import difflib

    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.7)
    return f"did you mean {by_lower[found[0]]}?" if found else ""


_KINDS = {"str": "text", "int": "a whole number", "bool": "true or false", "array": "a list", "object": "a mapping"}
_FOUND = _KINDS | {"int": "a number", "bool": "true or false", "null": "nothing"}


def _as_problem(message: str) -> Problem:
    """Return msgspec's complaint in a manifest author's words."""
    said, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    if missing := re.fullmatch(r"Object missing required field `(.+)`", said):
        return Problem(f"{path}.{missing[1]}".lstrip("."), "is missing", "every pod needs it")
    if wrong := re.fullmatch(r"Expected `(\w+)(?: \| null)?`, got `(\w+)`", said):
        wanted, got = cast("tuple[str, str]", wrong.groups())
        do = "put it into quotes" if wanted == "str" and got in ("int", "float", "bool") else ""
        return Problem(path, f"should be {_KINDS.get(wanted, wanted)}, and is {_FOUND.get(got, got)}", do)
    return Problem(path, said)
