"""The table of docs/oci.md is true.

Each field of the specification is in it, each case that it names is a test, and the peers that it names are those that
a case of the contract is not marked to differ for.
"""

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec
import pytest

from minirt.oci.spec import Spec

REPOSITORY = Path(__file__).parents[3]
DOCUMENT = REPOSITORY / "docs/oci.md"
HEAD = "| field | done | tested by | passes too on |"
PEERS = ("runc", "crun")


class Row(NamedTuple):
    """One line of the table: fields (``a.b.*`` is all below), what is done, cases (``file::test``), peers."""

    fields: tuple[str, ...]
    done: str
    cases: tuple[str, ...]
    peers: tuple[str, ...]


def rows() -> list[Row]:
    lines = DOCUMENT.read_text().splitlines()
    first = lines.index(HEAD) + 2
    found = []
    for line in lines[first:]:
        if not line.startswith("|"):
            return found
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        words = [tuple(re.findall(r"`([^`]+)`", cell)) for cell in cells]
        found.append(Row(words[0], cells[1], words[2], tuple(cells[3].replace("-", "").replace(",", " ").split())))
    return found


def leaves(kind: Any, at: str = "") -> Iterator[str]:
    """Yield the name of each field of a type, and of those below, as config.json has it."""
    for field in msgspec.structs.fields(kind):
        place = f"{at}.{field.encode_name}" if at else field.encode_name
        below = list(structs_in(field.type))
        yield from (leaf for struct in below for leaf in leaves(struct, place)) if below else [place]


def structs_in(kind: Any) -> Iterator[Any]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for argument in get_args(kind):
        yield from structs_in(argument)


def covers(pattern: str, field: str) -> bool:
    return field == pattern or (pattern.endswith(".*") and field.startswith(pattern[:-1]))


def test_each_field_is_in_it_once() -> None:
    patterns = [pattern for row in rows() for pattern in row.fields]
    counted = {field: sum(covers(pattern, field) for pattern in patterns) for field in leaves(Spec)}
    assert {field: count for field, count in counted.items() if count != 1} == {}
    fields = list(counted)
    assert [pattern for pattern in patterns if not any(covers(pattern, field) for field in fields)] == []


@lru_cache
def functions(file: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse((REPOSITORY / "tests" / file).read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def differing(node: ast.FunctionDef) -> set[str]:
    """Return the peers that a whole test is marked to differ for."""
    calls = [one for one in node.decorator_list if isinstance(one, ast.Call)]
    return {ast.literal_eval(call.args[0]) for call in calls if ast.unparse(call.func) == "pytest.mark.differs"}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.fields[0])
def test_each_case_is_there_and_passes_where_it_says(row: Row) -> None:
    assert row.done.split()[0].rstrip(",:;") in {"yes", "warned", "refused", "ignored"}
    assert row.cases
    found = [(case, functions(case.partition("::")[0])[case.partition("::")[2]]) for case in row.cases]
    of_peers = [differing(node) for case, node in found if case.startswith("contract/oci/")]
    assert row.peers == tuple(name for name in PEERS if any(name not in differ for differ in of_peers))
