import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirt.builder import words
from minirt.builder.dockerfile import parse
from minirt.builder.ignore import Ignore
from minirt.errors import InvalidInput, Unsupported


def test_lines_that_go_on() -> None:
    text = """# syntax=docker/dockerfile:1
# a comment
ARG X=1

from scratch AS one
  RUN a && \\
      # a comment between
      b \\

      c
CMD ["x", "y z"]
COPY --from=one --chown=1:2 a\tb /c/
"""
    found = parse(text).instructions
    assert [(one.line, one.keyword, one.text) for one in found] == [
        (3, "ARG", "X=1"),
        (5, "FROM", "scratch AS one"),
        (6, "RUN", "a &&       b       c"),
        (11, "CMD", '["x", "y z"]'),
        (12, "COPY", "a\tb /c/"),
    ]
    assert found[3].words == ("x", "y z")
    assert found[4].flags == {"from": "one", "chown": "1:2"}


def test_another_escape() -> None:
    found = parse("# escape=`\nFROM a\nRUN dir c:\\ `\n x")
    assert found.escape == "`"
    assert found.instructions[1].text == "dir c:\\  x"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the Dockerfile has no FROM"),
        ("RUN x\nFROM y", r"build line 1 \(RUN\): only ARG may stand before the first FROM"),
        ("FROM a\n\nBREW tea", r"build line 3 \(BREW\): there is no such instruction here \(known are ADD, ARG"),
        ("FROM a\nONBUILD RUN x", "there is no such instruction here"),
        ("FROM a\nRUN", r"line 2 \(RUN\): nothing follows it"),
        ("FROM a\nRUN <<EOF\nx\nEOF", "here-documents are not offered"),
        ("FROM a\nRUN --mount=type=cache,target=/x y", r"--mount is not offered \(known are --network"),
        ("FROM a\nCOPY --parents a b", "--parents is not offered"),
        ("# escape=x\nFROM a", "the escape directive is 'x'"),
    ],
)
def test_refusals(text: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        parse(text)


def test_what_is_understood_and_not_offered_is_said_so() -> None:
    with pytest.raises(Unsupported):
        parse("FROM a\nONBUILD RUN x")


VARIABLES = {"A": "1", "B": "two words", "E": "", "_x9": "u"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain", "plain"),
        ("$A", "1"),
        ("${A}0", "10"),
        ("$AB", ""),
        ("${B}", "two words"),
        ("$_x9-", "u-"),
        ("'$A'", "$A"),
        ('"$A"', "1"),
        ('"it\'s $A"', "it's 1"),
        (r"\$A", "$A"),
        (r'"\$A \" \n"', r'$A " \n'),
        (r"a\ b", "a b"),
        ("${N:-none}", "none"),
        ("${E:-none}", "none"),
        ("${E-none}", ""),
        ("${A:-none}", "1"),
        ("${A:+set}", "set"),
        ("${E:+set}", ""),
        ("${E+set}", "set"),
        ("${N:-${A}x}", "1x"),
        ("${N:-'}'}", "}"),
        ("$", "$"),
        ("a$.b", "a$.b"),
        ("${A:?must}", "1"),
    ],
)
def test_a_word(text: str, wanted: str) -> None:
    assert words.expand(text, VARIABLES, "\\") == wanted


@pytest.mark.parametrize("text", ["'a", '"a', "${A", "${}", "${A%x}", "${N:?must be set}"])
def test_a_word_that_makes_no_sense(text: str) -> None:
    with pytest.raises(InvalidInput):
        words.expand(text, VARIABLES, "\\")


def test_words() -> None:
    text = r"""a "b c"  d'e f'\ g	h"""
    assert words.split(text, "\\") == ["a", '"b c"', r"d'e f'\ g", "h"]
    assert [words.expand(word, {}, "\\") for word in words.split(text, "\\")] == ["a", "b c", "de f g", "h"]


@given(st.text(max_size=40))
def test_any_text_is_a_word_in_single_quotes_or_an_error(text: str) -> None:
    try:
        found = words.expand(text, {}, "\\")
    except InvalidInput:
        return
    assert "$A" not in found or "\\" in text or "'" in text or "$" in text
    if "'" not in text:
        assert words.expand(f"'{text}'", {}, "\\") == text


@pytest.mark.parametrize(
    ("lines", "hidden", "seen"),
    [
        (["*.log"], ["a.log"], ["d/a.log", "a.txt"]),
        (["**/*.log"], ["a.log", "d/e/a.log"], ["a.txt"]),
        (["d"], ["d", "d/a", "d/e/f"], ["dd", "e/d"]),
        (["/d/"], ["d", "d/a"], ["x"]),
        (["*", "!keep"], ["a", "d/e"], ["keep", "keep/x"]),
        (["d", "!d/keep"], ["d/a"], ["d/keep"]),
        (["d/*", "!d/a*", "d/ab"], ["d/b", "d/ab"], ["d/a", "d/abc", "d"]),
        (["# no", "", "  sp  "], ["sp"], ["# no"]),
        (["a?c", "[x-z]1"], ["abc", "y1"], ["ac", "a/c", "w1"]),
        (["a/**/z"], ["a/z", "a/b/c/z"], ["a/b"]),
        (["foo/../bar"], ["bar"], ["foo"]),
    ],
)
def test_ignored(lines: list[str], hidden: list[str], seen: list[str]) -> None:
    ignore = Ignore(lines)
    assert [path for path in hidden if not ignore.hides(path)] == []
    assert [path for path in seen if ignore.hides(path)] == []
