"""YAML as PyYAML composes it: nodes that know their lines. What the keys mean is not known here."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml


def compose(text: str) -> yaml.Node | None:
    """The nodes of a document. Raises yaml.YAMLError."""
    fast = getattr(yaml, "CSafeLoader", None)  # missing where PyYAML was built without libyaml
    if fast is not None:
        with contextlib.suppress(yaml.YAMLError, ValueError):  # the other one says more about what is wrong
            return yaml.compose(text, Loader=fast)
    return yaml.compose(text, Loader=yaml.SafeLoader)


def construct(root: yaml.Node | None) -> Any:
    """The document of composed YAML. Dates and versions of Python are text: the number 3.10 would be 3.1."""
    if root is None:
        return None
    for node in _all_nodes(root):
        if node.tag == "tag:yaml.org,2002:timestamp":
            node.tag = "tag:yaml.org,2002:str"
        for key, item in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.value == "python_version":
                _read_as_text(item)
            elif key.value == "pythons" and isinstance(item, yaml.MappingNode):
                for version, _ in item.value:
                    _read_as_text(version)
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _read_as_text(node: yaml.Node) -> None:
    if node.tag in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:int"):
        node.tag = "tag:yaml.org,2002:str"


def _all_nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def octal_numbers(root: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """Numbers with a leading zero, which YAML reads to the base of 8: 010 is 8."""
    for node in _all_nodes(root):
        if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:int":
            continue
        if re.fullmatch(r"[-+]?0[0-7_]+", node.value):
            yield node


def duplicate_keys(root: yaml.Node) -> Iterator[tuple[yaml.Node, int]]:
    """(key, line of the first one) for keys that appear twice in a mapping. YAML lets the later one win silently.

    To be called before `construct`, which puts what `<<` merges in among the keys."""
    for node in _all_nodes(root):
        first: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in first:
                yield key, first[key.value]
            first.setdefault(key.value, key.start_mark.line + 1)


def _steps(node: yaml.Node, loc: Sequence[int | str]) -> Iterator[yaml.Node]:
    yield node
    for step in loc:
        if isinstance(node, yaml.MappingNode):
            items = [(key, item) for key, item in node.value if key.value == str(step)]
            if not items:
                continue  # a missing key, or what pydantic adds to a key's place: "[key]", a union's branch
            yield items[-1][0]
            node = items[-1][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            yield node


def value_node(node: yaml.Node | None, keys: Sequence[str]) -> yaml.Node | None:
    """The value under keys within keys; None if it is not written there (a merged mapping)."""
    for key in keys:
        entries = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((item for name, item in entries if name.value == key), None)
    return node


def line_of(root: yaml.Node, loc: Sequence[int | str]) -> int:
    """The line of the last of these keys that is there."""
    return [node.start_mark.line for node in _steps(root, loc)][-1] + 1
