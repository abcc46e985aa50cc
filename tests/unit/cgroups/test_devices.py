"""The compiler of device rules, against an interpreter of what it emits, and a plain reading of the rules."""

import struct
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirt.cgroups.devices import (
    ALLOW_ALL,
    ALWAYS,
    DENY_ALL,
    AttachDeviceFilter,
    Rules,
    compile_rules,
    is_filter,
    plan_devices,
    words,
)
from minirt.cgroups.resources import DeviceRule
from minirt.errors import InvalidInput

BITS = {"m": 1, "r": 2, "w": 4}
KINDS = {"b": 1, "c": 2}
WORD = 0xFFFFFFFF


def instructions(program: bytes) -> list[tuple[int, int, int, int, int]]:
    """Return (operation, destination, source, offset, number) of each."""
    assert len(program) % 8 == 0
    found = []
    for code, both, offset, number in struct.iter_unpack("=BBhi", program):
        registers = (both & 15, both >> 4) if sys.byteorder == "little" else (both >> 4, both & 15)
        found.append((code, *registers, offset, number))
    return found


def says(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """Run a program as the kernel would for one device and what is wanted of it."""
    wanted = sum(BITS[letter] for letter in access)
    context = {0: wanted << 16 | KINDS[kind], 4: major, 8: minor}
    code, registers, at = instructions(program), {}, 0
    while True:
        operation, to, source, offset, number = code[at]
        at += 1
        if operation == 0x61:
            registers[to] = context[offset]
        elif operation == 0xB7:
            registers[to] = number
        elif operation == 0xBF:
            registers[to] = registers[source]
        elif operation == 0x54:
            registers[to] &= number & WORD
        elif operation == 0x4C:
            registers[to] |= registers[source]
        elif operation == 0x64:
            registers[to] = registers[to] << number & WORD
        elif operation == 0x74:
            registers[to] >>= number
        elif operation == 0x05:
            at += offset
        elif operation == 0x56:
            at += offset if registers[to] != number & WORD else 0
        elif operation == 0x45:
            at += offset if registers[to] & number else 0
        else:
            assert operation == 0x95
            return bool(registers[0])


def allowed(rules: Rules, kind: str, major: int, minor: int, access: str) -> bool:
    """Read rules as they are written: of each letter the last rule that names device and letter decides."""

    def fits(rule: DeviceRule, letter: str) -> bool:
        numbers = ((rule.major, major), (rule.minor, minor))
        same = all(asked in (None, -1, number) for asked, number in numbers)
        return same and rule.type in ("a", kind) and letter in rule.access

    verdicts = [[rule.allow for rule in rules if fits(rule, letter)] for letter in access]
    return all(found and found[-1] for found in verdicts)


KIND = st.sampled_from("bc")
MAJOR = st.sampled_from([0, 1, 5, 8, 136, 4095])
MINOR = st.sampled_from([0, 1, 3, 1048575])
LETTERS = st.sets(st.sampled_from("rwm"), min_size=1).map("".join)
ANY = st.sampled_from([None, -1])
RULES = st.lists(
    st.builds(DeviceRule, st.booleans(), st.sampled_from("abc"), MAJOR | ANY, MINOR | ANY, LETTERS), max_size=12
).map(tuple)


@given(RULES, KIND, MAJOR, MINOR, LETTERS)
def test_the_program_says_what_the_rules_say(rules: Rules, kind: str, major: int, minor: int, access: str) -> None:
    assert says(compile_rules(rules), kind, major, minor, access) == allowed(rules, kind, major, minor, access)


@given(RULES, KIND, MAJOR, MINOR, LETTERS)
def test_what_is_always_allowed_comes_last(rules: Rules, kind: str, major: int, minor: int, access: str) -> None:
    planned = plan_devices("/c", rules)
    complete = (*rules, *ALWAYS)
    if planned:
        assert says(compile_rules(planned[0].rules), kind, major, minor, access) == allowed(
            complete, kind, major, minor, access
        )
    elif rules:
        assert allowed(complete, kind, major, minor, access)


@given(RULES)
def test_every_instruction_can_be_reached_and_none_leads_back_or_out(rules: Rules) -> None:
    code = instructions(compile_rules(rules))
    reached = {0}
    for at, (operation, _, _, offset, _) in enumerate(code):
        assert at in reached
        assert offset >= 0
        jumps = operation in (0x05, 0x56, 0x45)
        reached |= {at + 1 + offset} if jumps else set()
        reached |= {at + 1} if operation not in (0x05, 0x95) else set()
    assert max(reached) < len(code)
    assert code[-1][0] == 0x95


ONLY = (DENY_ALL,)


@pytest.mark.parametrize(
    ("rules", "yes", "no"),
    [
        ((), "", "c1:3r b8:0m"),
        (ONLY, "", "c1:3r b8:0m c1:3rwm"),
        ((ALLOW_ALL,), "c1:3rwm b8:0rwm", ""),
        ((*ONLY, DeviceRule(True, "c", 1, 3, "rw")), "c1:3r c1:3w c1:3rw", "c1:3m c1:3rm b1:3r c1:4r c3:1r"),
        ((*ONLY, DeviceRule(True, "b", 8, None, "r")), "b8:0r b8:99r", "b8:0w b8:0rw c8:0r b9:0r"),
        ((*ONLY, DeviceRule(True, "c", None, 3, "r")), "c1:3r c9:3r", "c1:4r b1:3r"),
        ((*ONLY, DeviceRule(True, "c", -1, -1, "m")), "c1:3m", "b1:3m c1:3r"),
        ((*ONLY, DeviceRule(True, "a", 8, 0, "rwm")), "b8:0rw c8:0rw", "b8:1r"),
        ((DeviceRule(True, access="r"),), "b8:0r c1:3r", "b8:0w b8:0rw"),
        ((*ONLY, DeviceRule(True, "c", 1, 3, "r"), DeviceRule(True, "c", 1, None, "w")), "c1:3rw c1:4w", "c1:4r"),
        ((ALLOW_ALL, DeviceRule(False, "b", 8, None, "w")), "b8:0r b8:0m b9:0w", "b8:0w b8:0rw"),
        ((ALLOW_ALL, DeviceRule(False, "c", 1, 3, "rwm"), DeviceRule(True, "c", 1, 3, "r")), "c1:3r", "c1:3w c1:3rw"),
        ((DeviceRule(True, "c", 4095, 1048575, "rwm"),), "c4095:1048575rwm", "c4095:1048574r"),
    ],
    ids=lambda value: "; ".join(map(words, value)) if isinstance(value, tuple) else "",
)
def test_each_form_of_a_rule(rules: Rules, yes: str, no: str) -> None:
    program = compile_rules(rules)
    for wanted, expected in ((yes, True), (no, False)):
        for text in wanted.split():
            numbers = text[1:].rstrip("rwm")
            major, minor = map(int, numbers.split(":"))
            access = text[1 + len(numbers) :]
            assert says(program, text[0], major, minor, access) is expected, text


def test_a_line_says_the_rules_in_order() -> None:
    [filtering] = plan_devices("/c/one", (DENY_ALL, DeviceRule(True, "b", 8, -1, "r"), *ALWAYS[2:]), "a.field")
    assert filtering.because == "a.field"
    begin, *middle, end = filtering.describe().split("; ")
    assert begin == "bpf attach a device filter to /c/one: deny a *:* rwm"
    assert middle[:3] == ["allow b 8:* r", "allow c *:* m", "allow b *:* m"]
    assert end == "allow c 136:* rwm"
    assert "allow c 1:3 rwm" in middle


def test_a_rule_that_is_there_twice_is_asked_once() -> None:
    rules = (DENY_ALL, *ALWAYS, *ALWAYS)
    assert plan_devices("/c", rules) == [AttachDeviceFilter("/c", (DENY_ALL, *ALWAYS))]


@pytest.mark.parametrize(
    ("rules", "filters"),
    [
        ((), False),
        (ONLY, True),
        ((ALLOW_ALL,), False),
        ((DENY_ALL, ALLOW_ALL), False),
        ((ALLOW_ALL, DENY_ALL), True),
        ((ALLOW_ALL, DeviceRule(False, "b", 8, 0, "r")), True),
        ((DENY_ALL, DeviceRule(True, "c", 10, 229, "rwm"), ALLOW_ALL, DeviceRule(True, "b", access="r")), False),
        ((DeviceRule(True, "c", 1, 3, "r"),), True),
        ((DeviceRule(True, access="rw"),), True),
    ],
    ids=lambda value: "; ".join(map(words, value)) if isinstance(value, tuple) else "",
)
def test_what_allows_everything_needs_no_program(rules: Rules, filters: bool) -> None:
    assert is_filter(rules) is filters
    assert bool(plan_devices("/c", rules)) is filters


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (DeviceRule(True, "c", 1, 3), "use the device rule 'allow c 1:3 ': its access is ''"),
        (DeviceRule(False, "b", 8, 0, "rx"), "its access is 'rx' (it is one or more of r, w and m)"),
        (DeviceRule(True, "c", 4096, 0, "r"), "no device has the number 4096"),
        (DeviceRule(True, "c", 1, 1 << 20, "r"), "no device has the number 1048576"),
        (DeviceRule(True, "c", -2, 0, "r"), "no device has the number -2"),
    ],
)
def test_a_rule_that_makes_no_sense(rule: DeviceRule, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        plan_devices("/c", (rule,))
    assert said in str(caught.value)


def test_the_program_grows_with_the_rules_and_not_faster() -> None:
    lengths = [len(compile_rules(tuple(DeviceRule(True, "c", 1, n, "rw") for n in range(k)))) for k in range(5)]
    assert len({after - before for before, after in pairwise(lengths)}) == 1
