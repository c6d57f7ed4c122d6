"""A YAML document as nodes that know their place. Lines and columns are 1-based."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from runner.schema.scalars import Value

Part = str | int
Place = tuple[int, int]  # line, column


@dataclass(slots=True)
class Scalar:
    """One value. ``text`` is what was written, without quotes; ``origin`` says where it came from if not from here."""

    line: int
    column: int
    value: Value
    text: str
    quoted: bool = False
    origin: str = ""


@dataclass(slots=True)
class Items:
    """A list."""

    line: int
    column: int
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Fields:
    """A mapping; ``keys`` holds the place of each key."""

    line: int
    column: int
    items: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Place] = field(default_factory=dict)


Node = Scalar | Items | Fields


@dataclass(frozen=True, kw_only=True)
class Document:
    """One document that is not empty."""

    root: Node
    nodes: int  # aliases counted as often as they are used
    references: bool  # whether any value contains `${`


@dataclass(frozen=True, kw_only=True)
class Found:
    """Where a path leads: as far as it exists."""

    node: Node  # the deepest that exists
    place: Place  # its own
    key: Place  # that of its key; of the node itself in a list and at the top


def plain(node: Node) -> object:
    """The node's content as dicts, lists and values."""
    if type(node) is Scalar:
        return node.value
    if type(node) is Fields:
        return {key: plain(value) for key, value in node.items.items()}
    assert type(node) is Items
    return [plain(value) for value in node.items]


def find(root: Node, parts: Sequence[Part]) -> Found:
    """Follow ``parts`` from ``root`` as far as they exist."""
    node = root
    key = (root.line, root.column)
    for part in parts:
        if type(node) is Fields and part in node.items:
            assert isinstance(part, str)
            key, node = node.keys[part], node.items[part]
        elif type(node) is Items and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            key = (node.line, node.column)
        elif part == 0:  # one value where a list may stand
            continue
        else:
            break
    return Found(node=node, place=(node.line, node.column), key=key)


def split_path(path: str) -> tuple[Part, ...]:
    """`data.audio[0]` -> ("data", "audio", 0)."""
    parts = re.findall(r"\[([0-9]+)\]|([^.\[\]]+)", path)
    return tuple(int(index) if index else name for index, name in parts)
