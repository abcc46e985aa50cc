"""How msgspec is imported, each time in a Python of its own."""

import subprocess
import sys

import pytest

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
