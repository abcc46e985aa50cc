"""One YAML document, read so that every complaint about it can name its line.

YAML is composed to nodes first: nodes know their lines and still hold both of two equal keys, which the dict that is
made of them would not.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from minirt import imports
from minirt.errors import InvalidInput

with imports.patterns_later():
    import yaml
    from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_NODES = 100_000
"""More nodes than any manifest has: aliases of aliases can make billions out of a few lines."""


class _Loader(yaml.CSafeLoader):
    """The safe loader, but dates stay text: an annotation may be 2024-01-01, and no field of a pod is a date."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (the base class has it so)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


class Problem(NamedTuple):
    """Something wrong with a manifest: where (``spec.containers[0].name``), why, and what to do about it."""

    path: str
    why: str
    do: str = ""
    unsupported: bool = False


class Document(NamedTuple):
    """A document's plain value, and the line of each path in it."""

    name: str
    value: Any
    lines: dict[str, int]

    def where(self, path: str) -> str:
        """Return ``path (line N)``, the line being that of the nearest path above which has one."""
        nearest = path
        while nearest and nearest not in self.lines:
            nearest = nearest[: max(nearest.rfind("."), nearest.rfind("["), 0)]
        line = self.lines.get(nearest)
        return f"{path or 'the document'} (line {line})" if line else path


def parse(text: str, name: str) -> Document:
    """Return the one document in ``text``; ``name`` is the file's, for errors.

    Raises:
        InvalidInput: it is no YAML, has a key twice, or is not exactly one document.
    """
    loader = _Loader(text)
    try:
        nodes = list(_documents(loader))
        _require_one(nodes, name)
        lines = _lines(nodes[0], name)
        return Document(name, loader.construct_document(nodes[0]), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidInput(f"read {name}", f"{at}{error.problem or error}", "it must be valid YAML") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidInput(f"read {name}", str(error), "it must be valid YAML") from error
    finally:
        loader.dispose()


def _documents(loader: _Loader) -> Iterator[Node]:
    while loader.check_node():
        node = loader.get_node()
        if node is not None and node.tag != "tag:yaml.org,2002:null":
            yield node


def _require_one(nodes: list[Node], name: str) -> None:
    if not nodes:
        raise InvalidInput(f"use {name}", "it is empty", "write a Pod: apiVersion: v1, kind: Pod, …")
    if len(nodes) > 1:
        lines = ", ".join(str(node.start_mark.line + 1) for node in nodes)
        why = f"it holds {len(nodes)} documents (at lines {lines}), and one run is one pod"
        raise InvalidInput(f"use {name}", why, "put each into a file of its own")


def _lines(root: Node, name: str) -> dict[str, int]:
    lines: dict[str, int] = {}
    for count, (path, line) in enumerate(_walk(root, "", (), name)):
        lines.setdefault(path, line)
        if count > MAX_NODES:
            raise InvalidInput(f"read {name}", f"it has more than {MAX_NODES} values", "use fewer aliases")
    return lines


def _walk(node: Node, path: str, above: tuple[Node, ...], name: str) -> Iterator[tuple[str, int]]:
    """Yield the path and line of a node and of all below it; a key's line stands for its value."""
    if node in above:
        raise InvalidInput(f"read {name}", f"{path} contains itself", "an alias must not lead back")
    if isinstance(node, MappingNode):
        _refuse_duplicates(node, path, name)
        for key, value in node.value:
            below = f"{path}.{key.value}" if path else str(key.value)
            yield below, key.start_mark.line + 1
            yield from _walk(value, below, (*above, node), name)
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield f"{path}[{index}]", item.start_mark.line + 1
            yield from _walk(item, f"{path}[{index}]", (*above, node), name)


def _refuse_duplicates(node: MappingNode, path: str, name: str) -> None:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        line = key.start_mark.line + 1
        if key.value in seen:
            below = f"{path}.{key.value}" if path else key.value
            why = f"{below} is there twice, in lines {seen[key.value]} and {line}"
            raise InvalidInput(f"use {name}", why, "remove one of them")
        seen[key.value] = line
