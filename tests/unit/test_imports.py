"""How msgspec is imported, each time in a Python of its own."""

import subprocess
import sys

import pytest

ASKED = "import sys; from msgspec.inspect import StructType; assert 'msgspec._json_schema' in sys.modules"
SCHEMA = "import msgspec; assert msgspec.json.schema(int) == {'type': 'integer'}"
WHOLE = "import msgspec; assert msgspec.msgpack.decode(msgspec.msgpack.encode([1])) == [1]"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("how", ["lean_msgspec", "msgspec_alone"])
@pytest.mark.parametrize("use", [ASKED, SCHEMA, WHOLE])
def test_a_part_is_there_for_who_asks(how: str, use: str) -> None:
    done = run(f"from minirt import imports; imports.{how}(); {use}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("how", ["lean_msgspec", "msgspec_alone"])
def test_nobody_asks_for_typing_extensions(how: str) -> None:
    done = run(f"from minirt import imports; imports.{how}(); import sys, msgspec; print(sorted(sys.modules))")
    assert "'msgspec'" in done.stdout
    assert "'ast'" not in done.stdout, "typing_extensions brings it"


def test_who_has_it_alone_still_finds_typing_extensions() -> None:
    pytest.importorskip("typing_extensions")
    done = run("from minirt import imports; imports.msgspec_alone(); import typing_extensions")
    assert done.returncode == 0, done.stderr
