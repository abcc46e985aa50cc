"""Whatever is wrong with a config.json, the answer is an error of minirt's that names the place; never a traceback."""

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirt.cgroups.tree import Tree
from minirt.errors import InvalidInput, MinirtError
from minirt.oci import spec as specs
from minirt.oci.compile import compile_spec
from minirt.oci.plan import Plan
from minirt.oci.runtime import gate
from minirt.security import seccomp
from tests.unit.oci.full import CONFIG

TREE = Tree("/sys/fs/cgroup", "/sys/fs/cgroup", "/sys/fs/cgroup/minirt")
TEXT = json.dumps(CONFIG)
Place = tuple[str | int, ...]

MAPS_OF_THE_USERS = {"annotations", "sysctl", "unified", "rdma", "timeOffsets"}
"""Whose keys are free, or nearly so: msgspec does not say which of their values is wrong."""

NAMED = re.compile(
    r"config\.json: .*(at `\$|JSON|UTF-8|nested|Expected `object`|missing required|unknown field)"
    r"|\b(process|root|mounts|linux|hooks)(\.|\[\d)|\b(hostname|domainname|ociVersion|annotations)\b"
)
"""How a place in the document is named in a message: what lies at its top needs no path."""


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Yield the place of every value in a document."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*at, key))


PLACES = sorted(places(CONFIG), key=str)
LEFT_OUT = "left out"
HUGE = [2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**40, -1, -(2**31), -(2**63), -(10**40), 0.5, 1e300, -0.0]
STRANGE = [
    "",
    "\0",
    "a\0b",
    "/",
    "..",
    "/../..",
    "\ud800",
    "\n",
    "x" * 5000,
    "é",
    "../" * 300,
    "-",
    ":",
    "%s",
    "=",
    " ",
]
NESTED = json.loads("[" * 100 + "]" * 100)
VALUES = st.one_of(
    st.sampled_from([LEFT_OUT, None, True, False, 0, 1, [], {}, [[]], [{}], [None], {"": {}}, NESTED, *HUGE, *STRANGE]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=())),
    st.dictionaries(st.text(), st.integers()),
    st.lists(st.text(max_size=5), max_size=4),
    st.sampled_from(PLACES).map(lambda place: copy.deepcopy(at(CONFIG, place))),
)
CHANGES = st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=4)


def at(document: Any, place: Place) -> Any:
    for key in place:
        document = document[key]
    return document


def spoilt(changes: list[tuple[Place, Any]]) -> dict[str, Any]:
    """Return the whole configuration with some values replaced, or left out."""
    content: dict[str, Any] = json.loads(TEXT)
    for place, value in changes:
        try:
            inner = at(content, place[:-1])
            if value is LEFT_OUT:
                del inner[place[-1]]
            else:
                inner[place[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change has taken this place away
    return content


def read(directory: Path, content: bytes) -> Plan:
    """Do all that ``create`` does with a config.json before it makes anything."""
    (directory / "config.json").write_bytes(content)
    spec = specs.load(directory / "config.json")
    plan = compile_spec(spec, str(directory), None, TREE, 40, seccomp.preview_of(spec.linux.seccomp))
    plan = gate.with_gate(plan, 9, spec.hooks, 0)
    assert all(line for _, line in plan.lines())
    return plan


def answered(directory: Path, content: bytes) -> str:
    """Return the error, "" for none. Whatever else is raised fails the test."""
    try:
        read(directory, content)
    except MinirtError as error:
        assert NAMED.search(str(error)), "no place is named"
        return str(error)
    return ""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundle")


def test_the_whole_is_valid(bundle: Path) -> None:
    assert read(bundle, TEXT.encode()).has_user


@given(changes=CHANGES)
@settings(max_examples=400)
def test_values_that_make_no_sense(bundle: Path, changes: list[tuple[Place, Any]]) -> None:
    answered(bundle, json.dumps(spoilt(changes)).encode())


@given(changes=CHANGES, data=st.data())
@settings(max_examples=100)
def test_bytes_that_make_no_sense(bundle: Path, changes: list[tuple[Place, Any]], data: st.DataObject) -> None:
    text = bytearray(json.dumps(spoilt(changes), ensure_ascii=False).encode(errors="surrogatepass"))
    first = data.draw(st.integers(0, len(text) - 1))
    text[first : first + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    answered(bundle, bytes(text))


def test_a_wrong_type_is_named_by_its_place(bundle: Path) -> None:
    for place in PLACES:
        wrong: Any = 7 if isinstance(at(CONFIG, place), dict) else {"x": [1]}
        said = answered(bundle, json.dumps(spoilt([(place, wrong)])).encode())
        assert f"`${words(place)}`" in said


def words(place: Place) -> str:
    """Return a place as msgspec writes it."""
    first = next((number for number, key in enumerate(place[:-1]) if key in MAPS_OF_THE_USERS), None)
    if first is not None:
        place = (*place[: first + 1], "...", *place[first + 2 :])
    return "".join(f"[{key}]" if key == "..." or isinstance(key, int) else f".{key}" for key in place)


def test_an_unknown_field_is_named(bundle: Path) -> None:
    for place in [(), *PLACES]:
        content = json.loads(TEXT)
        if isinstance(at(content, place), dict) and not MAPS_OF_THE_USERS.intersection(place[-1:]):
            at(content, place)["unheardOf"] = 1
            assert "unknown field `unheardOf`" in answered(bundle, json.dumps(content).encode())


def broken(*place: str | int, value: Any) -> bytes:
    """Return a configuration without a terminal, with one value that is wrong."""
    return json.dumps(spoilt([(("process", "terminal"), False), (place, value)])).encode()


COMMANDS = [
    (b"", "truncated"),
    (b"\xff\xfe", "config.json"),
    (b'{"ociVersion": "\xed\xa0\x80"}', "UTF-8"),
    (b'{"unheardOf":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "unheardOf"),
    (broken("process", "args", 0, value="a\0b"), "$.process.args[0]"),
    (broken("mounts", 2, "source", value="a\0b"), "$.mounts[2].source"),
    (broken("linux", "resources", "memory", "limit", value=10**30), "$.linux.resources.memory.limit"),
    (broken("process", "user", "uid", value=-1), "$.process.user.uid"),
    (broken("process", value=None), "$.process"),
    (broken("hooks", "poststop", 0, "path", value="true"), "hooks.poststop[0].path"),
    (broken("mounts", 4, value={"destination": "/run", "type": "tmpfs", "options": ["remount"]}), "mounts[4].options"),
]


@pytest.mark.parametrize(("content", "where"), COMMANDS, ids=[where for _, where in COMMANDS])
def test_the_command_says_so_in_one_line(bundle: Path, tmp_path: Path, content: bytes, where: str) -> None:
    (bundle / "config.json").write_bytes(content)
    program = Path(sys.executable).with_name("minirt-oci")
    command: list[str | Path] = [program, "--root", tmp_path / "root", "create", "--bundle", bundle, "one"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "level=error" in line
    assert where in line
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ('{"args": ["a"], "user": {"uid": 4294967296}}', r"\$\.user\.uid"),
        ('{"args": ["a\\u0000"]}', r"\$\.args\[0\]"),
    ],
)
def test_a_process_to_execute_is_read_as_strictly(tmp_path: Path, content: str, where: str) -> None:
    (tmp_path / "process.json").write_text(content)
    with pytest.raises(InvalidInput, match=where):
        specs.read(tmp_path / "process.json", specs.Process)
