"""A Dockerfile, read: its instructions in order, each with the line it stands on. Nothing is expanded here.

    # escape=`                  a directive, before anything else
    # a comment
    RUN make && \\              a line that ends with the escape goes on in the next; comments between are left out
        make install
    COPY --from=build a b /c/   flags, then words or a JSON list

Source: https://docs.docker.com/reference/dockerfile
"""

import json
import re
from collections.abc import Iterator

from msgspec import Struct

from minirt.errors import InvalidInput, Unsupported

KEYWORDS = frozenset({
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER", "RUN",
    "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
})  # fmt: skip
FLAGS = {
    "FROM": {"platform"},
    "RUN": {"network"},
    "COPY": {"from", "chown", "chmod", "link"},
    "ADD": {"chown", "chmod", "link"},
    "HEALTHCHECK": {"interval", "timeout", "start-period", "start-interval", "retries"},
}
"""The flags that are understood."""
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_FLAG = re.compile(r"--([a-z][a-z-]*)(?:=(\S*))?(?:\s+|$)")
_HERE_DOCUMENT = re.compile(r"<<-?\s*([\"']?)[A-Za-z_]\w*\1(?:\s|$)")


class Instruction(Struct, frozen=True):
    """One instruction: ``text`` is what follows keyword and flags; ``words`` is its JSON list, or None."""

    keyword: str
    text: str
    flags: dict[str, str]
    words: tuple[str, ...] | None
    line: int
    source: str

    def fault(self, why: str, do: str = "") -> InvalidInput:
        """Return the error that says what is wrong with it, and where."""
        return InvalidInput(f"build line {self.line} ({self.keyword})", why, do)


class Dockerfile(Struct, frozen=True):
    """What a file says: arguments for all stages, the instructions of each stage, and its escape character."""

    instructions: tuple[Instruction, ...]
    escape: str = "\\"


def parse(text: str) -> Dockerfile:
    """Return what a Dockerfile says.

    Raises:
        InvalidInput: a line makes no sense. Unsupported: an instruction or a flag that is not offered.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    escape = _escape(lines)
    found = tuple(_instruction(line, whole, escape) for line, whole in _joined(lines, escape))
    if not any(one.keyword == "FROM" for one in found):
        raise InvalidInput("build", "the Dockerfile has no FROM", "begin with FROM and an image, or FROM scratch")
    for one in found:
        if one.keyword == "FROM":
            break
        if one.keyword != "ARG":
            raise one.fault("only ARG may stand before the first FROM", "begin with FROM")
    return Dockerfile(found, escape)


def _escape(lines: list[str]) -> str:
    for line in lines:
        found = _DIRECTIVE.fullmatch(line.strip())
        if not found:
            break
        if found[1].lower() == "escape":
            if found[2] not in ("\\", "`"):
                raise InvalidInput("build", f"the escape directive is {found[2]!r}", "it is \\ or `")
            return found[2]
    return "\\"


def _joined(lines: list[str], escape: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of each instruction, continued lines joined."""
    begun, text = 0, ""
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        begun = begun or number
        stripped = line.rstrip()
        if stripped.endswith(escape) and not stripped.endswith(escape * 2):
            text += stripped[:-1]
            continue
        yield begun, text + line
        begun, text = 0, ""
    if text.strip():
        yield begun, text


def _instruction(line: int, whole: str, escape: str) -> Instruction:
    keyword, *after = whole.strip().split(None, 1)
    keyword, rest = keyword.upper(), after[0].strip() if after else ""
    made = Instruction(keyword, rest, {}, None, line, f"{keyword} {rest}".strip())
    what = f"build line {line} ({keyword[:40]})"
    if keyword not in KEYWORDS:
        raise Unsupported(what, "there is no such instruction here", f"known are {', '.join(sorted(KEYWORDS))}")
    if not rest:
        raise made.fault("nothing follows it")
    if keyword in ("RUN", "COPY", "ADD") and _HERE_DOCUMENT.search(rest):
        raise Unsupported(what, "here-documents are not offered", f"join the lines with && and {escape}")
    flags = {}
    if keyword in FLAGS:
        while found := _FLAG.match(rest):
            if found[1] not in FLAGS[keyword]:
                known = ", ".join(f"--{flag}" for flag in sorted(FLAGS[keyword]))
                raise Unsupported(what, f"--{found[1]} is not offered", f"known are {known}")
            flags[found[1]] = found[2] or ""
            rest = rest[found.end() :].strip()
    return Instruction(keyword, rest, flags, json_words(rest), line, made.source)


def json_words(text: str) -> tuple[str, ...] | None:
    """Return a JSON list of strings as such, None for anything else."""
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return tuple(found) if isinstance(found, list) and all(isinstance(one, str) for one in found) else None
