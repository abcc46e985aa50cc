"""What a seccomp filter says to each system call: verdicts.c, built once, and what it wrote."""

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")

Verdicts = dict[tuple[str, int, int], int]
"""(abi, number, first argument) to errno: ENOSYS is "allowed", but for the real calls (abi ``real``)."""


def build(directory: Path) -> Path:
    """Return the program, static, in ``directory``."""
    program = directory / "verdicts"
    subprocess.run(["gcc", "-static", "-O1", "-o", program, SOURCE], check=True)
    return program


def is_written(path: Path) -> bool:
    """Say whether the program has written all."""
    return path.exists() and path.read_text().endswith("end\n")


def read(path: Path) -> Verdicts:
    """Return what the program wrote."""
    rows = [line.split() for line in path.read_text().splitlines()[:-1]]
    return {(abi, int(number), int(first)): int(answer) for abi, number, first, answer in rows}


def differences(one: Verdicts, other: Verdicts) -> dict[tuple[str, int, int], tuple[int, int]]:
    """Return where two disagree."""
    assert one.keys() == other.keys()
    return {key: (one[key], other[key]) for key in one if one[key] != other[key]}
