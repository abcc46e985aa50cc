"""What of a directory is no part of the build: .dockerignore.

    *.log           in the top directory; ** stands for any number of directories
    !keep.log       and yet; the last line that fits decides
    node_modules    with all that is in it

Source: https://docs.docker.com/build/concepts/context/#dockerignore-files
"""

import posixpath
import re
from collections.abc import Iterable


class Ignore:
    """The lines of a .dockerignore."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._rules = [rule for line in lines if (rule := _rule(line))]

    def hides(self, path: str) -> bool:
        """Say whether a file (a path without a slash at its beginning) is no part of the build.

        What fits one of its directories fits it.
        """
        parts = path.split("/")
        parents = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        hidden = False
        for pattern, is_exception in self._rules:
            if any(pattern.fullmatch(parent) for parent in parents):
                hidden = not is_exception
        return hidden

    @property
    def has_exceptions(self) -> bool:
        """Say whether something may be seen in a directory that is hidden."""
        return any(is_exception for _, is_exception in self._rules)


def _rule(line: str) -> tuple[re.Pattern[str], bool] | None:
    line = line.strip()
    if not line or line.startswith("#"):
        return None
    is_exception = line.startswith("!")
    pattern = posixpath.normpath(line.removeprefix("!").strip()).lstrip("/")
    return (re.compile(translated(pattern)), is_exception) if pattern not in ("", ".") else None


def translated(pattern: str) -> str:
    """Return a pattern of Go's filepath.Match, with ``**`` for any directories, as a regular expression."""
    made, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if pattern.startswith("**/", at - 1):
            made, at = made + "(?:.*/)?", at + 2
        elif pattern.startswith("**", at - 1):
            made, at = made + ".*", at + 1
        elif char == "*":
            made += "[^/]*"
        elif char == "?":
            made += "[^/]"
        elif char == "[" and (end := pattern.find("]", at + 1)) > 0:
            inner = pattern[at:end].replace("\\", "\\\\")
            made, at = f"{made}[{inner}]", end + 1
        elif char == "\\" and at < len(pattern):
            made, at = made + re.escape(pattern[at]), at + 1
        else:
            made += re.escape(char)
    return made
