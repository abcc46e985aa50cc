"""How some packages are imported, each time in a Python of its own."""

import re
import subprocess
import sys

import pytest

from minirt import imports

ASKED = "import msgspec; from msgspec.inspect import type_info, IntType; assert type_info(int) == IntType()"
SCHEMA = "import msgspec; assert msgspec.json.schema(int) == {'type': 'integer'}"
WHOLE = "import msgspec; assert msgspec.msgpack.decode(msgspec.msgpack.encode([1])) == [1]"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("use", [ASKED, SCHEMA, WHOLE])
def test_a_part_is_there_for_who_asks(use: str) -> None:
    done = run(f"from minirt import imports; imports.msgspec_alone(); {use}")
    assert done.returncode == 0, done.stderr


def test_it_brings_nothing_along() -> None:
    done = run("from minirt import imports; imports.msgspec_alone(); import sys, msgspec; print(sorted(sys.modules))")
    assert "'msgspec'" in done.stdout
    for name in ("ast", "uuid", "decimal", "_decimal", "datetime"):
        assert f"'{name}'" not in done.stdout, name


def test_who_has_it_alone_still_finds_the_real_modules() -> None:
    real = "import datetime, decimal, uuid; print(uuid.UUID(int=decimal.Decimal(7).__int__()), datetime.timedelta(1))"
    done = run(f"from minirt import imports; imports.msgspec_alone(); {real}")
    assert done.stdout == "00000000-0000-0000-0000-000000000007 1 day, 0:00:00\n", done.stderr


def test_who_has_it_alone_still_finds_typing_extensions() -> None:
    pytest.importorskip("typing_extensions")
    done = run("from minirt import imports; imports.msgspec_alone(); import typing_extensions")
    assert done.returncode == 0, done.stderr


def test_a_pattern_that_waits_is_one() -> None:
    with imports.patterns_later():
        word, number = re.compile(r"(\w+)"), re.compile("[0-9]+", re.ASCII)
    assert re.compile("x") is re.compile("x"), "others are compiled at once again"
    assert word.fullmatch("abc").group(1) == "abc"
    assert number.sub("n", "a1b22") == "anbn"
    assert number.pattern == "[0-9]+"


def test_a_pattern_that_waits_may_be_wrong() -> None:
    with imports.patterns_later():
        wrong = re.compile("(")
    with pytest.raises(re.error):
        wrong.match("x")


@pytest.mark.parametrize("text", ["a: \x01", "a: 2024-01-01T25:61:61"])
def test_yaml_reads_what_it_reads_without(text: str) -> None:
    done = run(f"import yaml\ntry: print(yaml.safe_load({text!r}))\nexcept Exception as error: print(error)")
    from_here = f"from minirt.kubelet.document import yaml\ntry: print(yaml.safe_load({text!r}))\n"
    assert run(f"{from_here}except Exception as error: print(error)").stdout == done.stdout
    assert done.stdout


def test_the_messages_of_the_cri_come_without_protobuf_in_python() -> None:
    done = run("from minirt.crimessages import api_pb2 as cri; import sys; print(cri.VersionRequest(version='1'))")
    assert done.stdout.split() == ["version:", '"1"'], done.stderr
    loaded = run("import minirt.crimessages, sys; print('google.protobuf.internal.python_message' in sys.modules)")
    assert loaded.stdout == "False\n"
    real = run(
        "import minirt.crimessages; from google.protobuf.internal import python_message as it; print(it.__file__)"
    )
    assert real.stdout.endswith("python_message.py\n"), real.stderr
