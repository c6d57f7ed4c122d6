"""Text to a tree of nodes with places: YAML 1.2, strict, within budgets.

One pass over libyaml's events builds the tree, so depth, node count and aliases are checked while they come in and
nothing is expanded first: PyYAML's own composer recurses (2,000 levels end in a RecursionError) and shares aliased
nodes (396 bytes can stand for 3.5e9 of them).

Decided where YAML leaves room: anchors and aliases are allowed and counted expanded; the merge key ``<<`` is allowed
(it is YAML 1.1, but people like it): explicit keys win, then the earlier of several merged mappings; tags are refused
except the core ones, which must agree with the value; ``%YAML`` other than 1.2 is refused; keys are text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import yaml
from yaml import events

from runner.schema.errors import Problem
from runner.schema.nodes import Document, Fields, Items, Node, Part, Place, Scalar
from runner.schema.scalars import resolve
from runner.schema.syntax import problem_of
from runner.schema.words import problem, quoted

MAX_DEPTH = 64
MAX_NODES = 50_000  # of one file, aliases counted as often as they are used
MAX_DOCUMENTS = 256
MAX_SCALAR = 65_536  # characters
MAX_PROBLEMS = 100  # of one file; what follows is noise

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
TAG = "tag:yaml.org,2002:"
TAGGED = {"str": str, "int": int, "float": float, "bool": bool, "null": type(None)}

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")


def parse(text: str, file: str) -> tuple[list[Document], list[Problem]]:
    """Every document of ``text`` that could be read, and all that is wrong with their form."""
    composer = _Composer(file)
    loader = None
    try:
        loader = LOADER(text)
        while (event := loader.get_event()) is not None:
            composer.take(event)
    except yaml.YAMLError as error:
        composer.problems.append(problem_of(error, text=text, file=file))
    except _TooMuchError as error:
        return [], [*composer.problems, error.problem]
    finally:
        if loader is not None:
            loader.dispose()
    return composer.documents, composer.problems


class _TooMuchError(Exception):
    """A budget is used up: reading the file ends here."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    node: Items | Fields
    anchor: str | None
    nodes_before: int
    key: str | None = None  # of the value that comes next
    key_place: Place = (0, 0)
    keep: bool = True  # whether that value goes into the mapping: not when its key is wrong
    merging: bool = False  # whether that value is merged into it
    height: int = 1
    merge: list[Node] = field(default_factory=list)


class _Composer:
    """Takes events, builds documents."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.documents: list[Document] = []
        self.problems: list[Problem] = []
        self._starts = 0  # documents begun
        self._nodes = 0  # of the file
        self._nodes_before = 0  # ... when the document began
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int, int]] = {}  # node, nodes, height
        self._references = False
        self._root: Node | None = None  # of this document, once it is complete

    def take(self, event: yaml.Event) -> None:
        """Add one event."""
        if isinstance(event, events.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, events.CollectionStartEvent):
            self._open(event)
        elif isinstance(event, events.CollectionEndEvent):
            self._close()
        elif isinstance(event, events.AliasEvent):
            self._alias(event)
        elif isinstance(event, events.DocumentStartEvent):
            self._start(event)
        elif isinstance(event, events.DocumentEndEvent):
            self._finish()

    def _start(self, event: yaml.DocumentStartEvent) -> None:
        self._starts += 1
        if self._starts > MAX_DOCUMENTS:
            raise self._too_much(event, f"more than {MAX_DOCUMENTS} documents in one file")
        if event.version is not None and event.version != (1, 2):
            self._problem(_place(event), "yaml-version", "specs are YAML 1.2", "remove the %YAML line")
        self._anchors.clear()
        self._nodes_before = self._nodes
        self._references = False

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._grow(event, 1)
        text = event.value
        line, column = place = _place(event)
        node = Scalar(line, column, text, text, True)
        if event.tag is None:
            if event.implicit[0]:
                self._resolve(node)
        elif event.tag != "!":
            self._tagged(node, event.tag)
        if len(text) > MAX_SCALAR:
            raise self._too_much(event, f"a text of {len(text):,} characters, at most {MAX_SCALAR:,} are allowed")
        if event.style == '"' and _CONTROL.search(text):
            what = "a text must not contain control characters"
            self._problem(place, "control-character", what, "remove the escape")
        if "${" in text:
            self._references = True
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, 1, 0)
        self._put(node, place, 0)

    def _resolve(self, node: Scalar) -> None:
        node.quoted = False
        try:
            node.value = resolve(node.text)
        except ValueError as error:
            self._problem((node.line, node.column), "number-too-large", str(error), "put it in quotes if it is text")

    def _tagged(self, node: Scalar, tag: str) -> None:
        wanted = TAGGED.get(tag.removeprefix(TAG)) if tag.startswith(TAG) else None
        if wanted is None:
            self._custom_tag((node.line, node.column))
        elif wanted is not str:
            self._resolve(node)
            if wanted is float and type(node.value) is int:
                node.value = float(node.value)
            if type(node.value) is not wanted:
                self._problem((node.line, node.column), "tag", "the value is not what its tag says", "remove the tag")

    def _open(self, event: yaml.CollectionStartEvent) -> None:
        self._grow(event, 1)
        line, column = _place(event)
        is_map = type(event) is events.MappingStartEvent
        if event.tag not in (None, "!", TAG + ("map" if is_map else "seq")):
            self._custom_tag((line, column))
        if len(self._stack) >= MAX_DEPTH:
            raise self._too_much(event, f"nested deeper than {MAX_DEPTH} levels")
        self._stack.append(_Open((Fields if is_map else Items)(line, column), event.anchor, self._nodes - 1))
        if event.anchor is not None:
            self._anchors.pop(event.anchor, None)  # its name means nothing until it ends: no node contains itself

    def _close(self) -> None:
        done = self._stack.pop()
        node = done.node
        if done.merge and type(node) is Fields:
            self._merge(node, done.merge)
        if done.anchor is not None:
            self._anchors[done.anchor] = (node, self._nodes - done.nodes_before, done.height)
        self._put(node, (node.line, node.column), done.height)

    def _alias(self, event: yaml.AliasEvent) -> None:
        line, column = place = _place(event)
        if event.anchor not in self._anchors:
            # its name is not shown: `password: *hunter2` is an alias too
            what = "an alias (`*name`) without an anchor (`&name`) that ends above it"
            self._problem(place, "unknown-alias", what, "put text that starts with `*` in quotes")
            self._put(Scalar(line, column, "*", "*"), place, 0)
            return
        node, nodes, height = self._anchors[event.anchor]
        self._grow(event, nodes)
        if len(self._stack) + height > MAX_DEPTH:
            raise self._too_much(event, f"nested deeper than {MAX_DEPTH} levels with the alias expanded")
        self._put(node, place, height)

    def _put(self, node: Node, place: Place, height: int) -> None:
        if not self._stack:
            self._root = node
            return
        top = self._stack[-1]
        if height >= top.height:
            top.height = height + 1
        parent = top.node
        if type(parent) is Items:
            parent.items.append(node)
        elif top.key is None:
            self._key(top, node, place)
        else:
            assert type(parent) is Fields
            self._value(top, parent, node)

    def _key(self, top: _Open, node: Node, place: Place) -> None:
        top.keep = type(node) is Scalar and type(node.value) is str
        if not top.keep:
            what = f"the key {quoted(node.text)} is not text" if type(node) is Scalar else "a mapping or list as a key"
            self._problem(place, "key", what, "put it in quotes; decimals have a point, not a comma")
        top.key_place = place
        top.key = node.text if type(node) is Scalar else "?"
        top.merging = top.key == "<<" and type(node) is Scalar and not node.quoted

    def _value(self, top: _Open, parent: Fields, node: Node) -> None:
        key, top.key = top.key, None
        assert key is not None
        if not top.keep:
            return
        if top.merging:
            top.merge.append(node)
        elif key in parent.items:
            what = f"{quoted(key)} is given twice, in lines {parent.keys[key][0]} and {top.key_place[0]}"
            self._problem(top.key_place, "duplicate-key", what, "keep one of them", key)
        else:
            parent.items[key] = node
            parent.keys[key] = top.key_place

    def _merge(self, into: Fields, merged: list[Node]) -> None:
        for node in merged:
            for source in node.items if type(node) is Items else [node]:
                if type(source) is not Fields:
                    what = "`<<` merges mappings only"
                    self._problem((node.line, node.column), "merge-key", what, "give it `*name` of a mapping")
                else:
                    into.items = {**source.items, **into.items}
                    into.keys = {**source.keys, **into.keys}

    def _finish(self) -> None:
        root = self._root
        assert root is not None
        if type(root) is Scalar and root.value is None and not root.quoted:
            return  # an empty document
        nodes = self._nodes - self._nodes_before
        self.documents.append(Document(root=root, nodes=nodes, references=self._references))

    def _grow(self, event: yaml.Event, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise self._too_much(event, f"more than {MAX_NODES:,} values in one file, with its aliases expanded")

    def _path(self) -> list[Part]:
        parts: list[Part] = []
        for level in self._stack:
            if type(level.node) is Items:
                parts.append(len(level.node.items))
            elif level.key is not None:
                parts.append(level.key)
        return parts

    def _custom_tag(self, place: Place) -> None:
        hint = "write the value without it, and put text that starts with `!` in quotes"
        self._problem(place, "tag", "tags (`!name`) are not allowed", hint)

    def _too_much(self, event: yaml.Event, message: str) -> _TooMuchError:
        return _TooMuchError(problem(self.file, _place(event), "too-much", message, hint="split it", path=self._path()))

    def _problem(self, place: Place, code: str, message: str, hint: str, *under: Part) -> None:
        found = problem(self.file, place, code, message, hint=hint, path=[*self._path(), *under])
        if len(self.problems) >= MAX_PROBLEMS:
            raise _TooMuchError(found)
        self.problems.append(found)


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    assert mark is not None
    return mark.line + 1, mark.column + 1
