"""What is to be built: the stages of a Dockerfile, what each stands on and copies from, and so which are needed."""

from collections.abc import Mapping

from minirt.builder.dockerfile import Dockerfile, Instruction
from minirt.builder.settings import Settings
from minirt.errors import InvalidInput
from minirt.images.image import Platform


class Plan:
    """The stages of a Dockerfile, each the instructions from its FROM on; ``given`` are the values of --build-arg.

    ``arguments`` are those that are set before the first FROM, and docker's own about platforms; ``used`` are the names
    that an ARG there asked for.
    """

    def __init__(self, file: Dockerfile, given: Mapping[str, str], platform: Platform) -> None:
        self.escape = file.escape
        self.stages: list[list[Instruction]] = []
        self.used: set[str] = set()
        before = Settings({"config": {}}, file.escape)
        before.arguments |= _predefined(platform)
        for one in file.instructions:
            if one.keyword == "FROM":
                self.stages.append([one])
            elif self.stages:
                self.stages[-1].append(one)
            else:
                self.used |= set(before.argue(one, given))
        self._before = before

    @property
    def arguments(self) -> dict[str, str]:
        """Return the global arguments."""
        return self._before.arguments

    def expand(self, text: str) -> str:
        """Return a word of a FROM with its variables replaced: the global arguments. Raises InvalidInput."""
        return self._before.expand(text)

    def base(self, one: Instruction) -> str:
        """Return what a FROM names."""
        return self._named(one)[0]

    def name(self, one: Instruction) -> str:
        """Return the name that a FROM gives its stage, in lower case; "" for none."""
        return self._named(one)[1]

    def _named(self, one: Instruction) -> tuple[str, str]:
        parts = self._before.words(one)
        if len(parts) == 3 and parts[1].upper() == "AS":
            return parts[0], parts[2].lower()
        if len(parts) != 1 or not parts[0]:
            raise one.fault(f"{one.text!r} is not IMAGE, or IMAGE AS NAME", "is a variable of it empty?")
        return parts[0], ""

    def target(self, wanted: str) -> int:
        """Return the stage of a name or a number; "" is the last. Raises InvalidInput: there is none."""
        if not wanted:
            return len(self.stages) - 1
        found = self.find(wanted, len(self.stages))
        if found is None:
            names = ", ".join(filter(None, (self.name(first) for first, *_ in self.stages)))
            raise InvalidInput(f"build the stage {wanted}", "there is none", f"there are {names or 'none with a name'}")
        return found

    def find(self, name: str, before: int) -> int | None:
        """Return the stage of a name or a number among those before one; the last of a name."""
        if name.isdigit() and int(name) < before:
            return int(name)
        named = [index for index in range(before) if self.name(self.stages[index][0]) == name.lower()]
        return named[-1] if named else None

    def needed(self, target: int) -> set[int]:
        """Return the stages that a stage is made of, directly or not, with itself."""
        needed, waiting = set(), [target]
        while waiting:
            index = waiting.pop()
            needed.add(index)
            first, *rest = self.stages[index]
            names = [self.base(first), *(one.flags["from"] for one in rest if "from" in one.flags)]
            found = (self.find(name, index) for name in names)
            waiting += [one for one in found if one is not None and one not in needed]
        return needed


def _predefined(one: Platform) -> dict[str, str]:
    """Return docker's arguments about platforms, which an ARG of their name brings in."""
    parts = {"PLATFORM": str(one), "OS": one.os, "ARCH": one.architecture, "VARIANT": one.variant}
    return {f"{who}{key}": value for who in ("TARGET", "BUILD") for key, value in parts.items()}
