"""A type that two threads decode into for the first time: msgspec alone ends in a crash, so this is a process."""

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

FIRST_USES = """
import sys, threading
import msgspec
from minirt import decoding

sys.setswitchinterval(1e-6)
FIELDS = [(f"field{number}", dict[str, int] | None, None) for number in range(50)]

def decode(barrier, inner, outer, found):
    barrier.wait()
    found.append(decoding.from_json(b'{"inner": {"field3": {"x": 1}}}', outer).inner.field3)
    found.append(decoding.convert({"field49": {"x": 1}}, inner).field49)

for _ in range(50):
    inner = msgspec.defstruct("Inner", FIELDS)
    outer = msgspec.defstruct("Outer", [("inner", inner), *FIELDS])
    barrier, found = threading.Barrier(4), []
    threads = [threading.Thread(target=decode, args=(barrier, inner, outer, found)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{"x": 1}] * 8, found
"""


def test_threads_may_be_the_first_together() -> None:
    command = [sys.executable, "-c", FIRST_USES]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or f"exit {done.returncode}"


def test_nobody_passes_the_door() -> None:
    direct = re.compile(r"decode\(.*type=|msgspec\.convert\(")
    files = (path for path in (REPOSITORY / "minirt").rglob("*.py") if path.name != "decoding.py")
    assert [str(path) for path in files if direct.search(path.read_text())] == []
