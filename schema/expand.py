"""`vars`, `matrix` and `${...}`: one document becomes one or more, before validation.

    vars: {beam: 4}                    # a value for ${vars.beam}; `--set beam=8` replaces it
    matrix: {lang: [pt, es]}           # one spec for each combination, in this order
    name: news-${matrix.lang}          # in a text: as it was written
    decode: {beam_size: "${vars.beam}"}  # alone: keeps its type (quotes are needed inside {} and [])

Both belong to their document and hold single values, not lists or mappings, and refer to nothing themselves.
``${env:NAME}`` is a secret reference, for fields that hold secrets: the loader never resolves it. No kind has such a
field yet, so it is refused everywhere. `kind` is read first and cannot be a reference.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from runner.schema.errors import Problem, UsageError
from runner.schema.nodes import Document, Fields, Items, Node, Part, Scalar
from runner.schema.scalars import resolve
from runner.schema.words import did_you_mean, listing, problem, quoted
from runner.schema.yaml12 import MAX_SCALAR

MAX_EXPANSIONS = 1_000  # of one document
MAX_NODES = 1_000_000  # of one document, over all its expansions

ENVELOPE = {  # fields of every spec that are used up here
    "vars": "Values for `${vars.NAME}` in this document; `--set NAME=VALUE` replaces one.",
    "matrix": "Lists of values for `${matrix.NAME}`: one spec for each combination.",
}
NAME = r"[A-Za-z_][A-Za-z0-9_-]{0,62}"
_NAME = re.compile(NAME)
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_ANY = re.compile(r"\$\{[^{}]*\}?")

Scope = dict[str, Scalar]  # "vars.beam" -> its value


def expand(
    document: Document, root: Fields, *, file: str, overrides: Mapping[str, str]
) -> tuple[list[Fields], list[Problem]]:
    """The documents that ``document`` stands for, without `vars` and `matrix`, and what is wrong with these.

    With a problem it is the one document as written, so that the rest of it can be checked. ``overrides`` replaces
    variables that the document declares.
    """
    if not document.references and not ENVELOPE.keys() & root.items.keys():
        return [root], []
    return _Expansion(file=file, root=root, overrides=overrides).run(document.nodes)


def overrides_of(words: Sequence[str]) -> dict[str, str]:
    """Values of variables from `--set NAME=VALUE` words; the last one of a name counts. Raises UsageError."""
    pairs = [word.partition("=") for word in words]
    for name, sign, _ in pairs:
        if not sign or not _NAME.fullmatch(name):
            raise UsageError(f"--set takes NAME=VALUE; got {name + sign!r}")  # the value may be a secret
    return {name: value for name, _, value in pairs}


def declared(root: Fields) -> tuple[str, ...]:
    """Names of the variables that a document declares."""
    found = root.items.get("vars")
    return tuple(found.items) if isinstance(found, Fields) else ()


@dataclass(kw_only=True)
class _Expansion:
    """The expansion of one document."""

    file: str
    root: Fields
    overrides: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)

    def run(self, nodes: int) -> tuple[list[Fields], list[Problem]]:
        variables = self._variables()
        axes = self._axes()
        count = math.prod(len(values) for values in axes.values())
        if count > MAX_EXPANSIONS or count * nodes > MAX_NODES:
            what = f"{count:,} combinations, at most {MAX_EXPANSIONS:,} (and {MAX_NODES:,} values in all) are allowed"
            self._problem(self.root.items["matrix"], ("matrix",), "too-much", what, "split it")
        keep = {k: v for k, v in self.root.items.items() if k not in ENVELOPE}
        body = Fields(self.root.line, self.root.column, keep, self.root.keys)
        self._check(body, (), {*variables, *axes})
        if self.problems:
            return [body], self.problems
        scopes = [{**variables, **dict(zip(axes, values, strict=True))} for values in itertools.product(*axes.values())]
        expanded = [self._expanded(body, scope) for scope in scopes]
        self._check_names(expanded, axes)
        return [body] if self.problems else expanded, self.problems

    def _variables(self) -> Scope:
        scope: Scope = {}
        for name, node in self._entries("vars"):
            path = ("vars", name)
            if not isinstance(node, Scalar):
                self._problem(
                    node, path, "wrong-type", "a variable is one value, no list or mapping", "write `name: value`"
                )
            elif self._is_literal(node, path):
                scope[f"vars.{name}"] = self._overridden(name, node)
        return scope

    def _overridden(self, name: str, node: Scalar) -> Scalar:
        if name not in self.overrides:
            return node
        text = self.overrides[name]
        if "${" in text or not text.isprintable():
            what = f"--set {name}: a value is plain text, without references and control characters"
            self._problem(node, ("vars", name), "reference", what, "give the value itself")
            return node
        is_quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'"
        text = text[1:-1] if is_quoted else text
        try:
            value = text if is_quoted else resolve(text)
        except ValueError as error:
            self._problem(
                node, ("vars", name), "number-too-large", f"--set {name}: {error}", "put it in quotes if it is text"
            )
            return node
        return Scalar(node.line, node.column, value, text, is_quoted, f"--set {name}")

    def _axes(self) -> dict[str, list[Scalar]]:
        axes = {}
        for name, node in self._entries("matrix"):
            path = ("matrix", name)
            if not isinstance(node, Items) or not node.items:
                self._problem(node, path, "wrong-type", "expected a list of one or more values", "write [a, b]")
                continue
            values = [v for i, v in enumerate(node.items) if self._is_value(v, (*path, i))]
            axes[f"matrix.{name}"] = [v for v in values if isinstance(v, Scalar)]
        return axes

    def _is_value(self, node: Node, path: tuple[Part, ...]) -> bool:
        if isinstance(node, Scalar):
            return self._is_literal(node, path)
        self._problem(
            node, path, "wrong-type", "a matrix is made of single values, no lists or mappings", "write `name: [a, b]`"
        )
        return False

    def _is_literal(self, node: Scalar, path: tuple[Part, ...]) -> bool:
        if "${" in node.text:
            what = f"values under `{path[0]}` refer to nothing themselves"
            self._problem(node, path, "reference", what, "put the reference where the value is used")
            return False
        return True

    def _entries(self, block: str) -> Iterator[tuple[str, Node]]:
        found = self.root.items.get(block)
        if found is None:
            return
        if not isinstance(found, Fields) or not found.items:
            what = "expected a mapping of names to " + ("values" if block == "vars" else "lists of values")
            self._problem(found, (block,), "wrong-type", what, "remove it if there is none")
            return
        for name, node in found.items.items():
            if _NAME.fullmatch(name):
                yield name, node
            else:
                what = "a name is made of letters, digits, `_` and `-` and starts with a letter"
                self.problems.append(
                    problem(self.file, found.keys[name], "name", what, hint="rename it", path=(block, name))
                )

    def _check(self, node: Node, path: tuple[Part, ...], known: set[str]) -> None:
        """Every reference below ``node`` leads to something."""
        if isinstance(node, Fields):
            for key, value in node.items.items():
                self._check(value, (*path, key), known)
        elif isinstance(node, Items):
            for i, value in enumerate(node.items):
                self._check(value, (*path, i), known)
        elif "${" in node.text:
            for found in _ANY.finditer(node.text):
                self._check_reference(found.group(), node, path, known)

    def _check_reference(self, text: str, node: Scalar, path: tuple[Part, ...], known: set[str]) -> None:
        inside = text[2:].rstrip("}")
        if inside.startswith("env:"):
            what = "a secret (`${env:NAME}`) may only stand in a field that holds secrets, and no kind has one yet"
            self._problem(node, path, "secret", what, "use ${vars.NAME} for what is no secret")
        elif not text.endswith("}"):
            self._problem(node, path, "reference", "`${` without its `}`", "write ${vars.NAME} or ${matrix.NAME}")
        elif inside not in known:
            names = listing((f"${{{name}}}" for name in sorted(known)), "and") if known else "none"
            what = f"unknown reference {quoted(text)}, known are {names}"
            self._problem(node, path, "unknown-reference", what, _meant(inside, known))

    def _expanded(self, body: Fields, scope: Scope) -> Fields:
        items = {key: self._substitute(value, (key,), scope) for key, value in body.items.items()}
        return Fields(body.line, body.column, items, body.keys)

    def _substitute(self, node: Node, path: tuple[Part, ...], scope: Scope) -> Node:
        if isinstance(node, Fields):
            items = {k: self._substitute(v, (*path, k), scope) for k, v in node.items.items()}
            return Fields(node.line, node.column, items, node.keys)
        if isinstance(node, Items):
            values = [self._substitute(v, (*path, i), scope) for i, v in enumerate(node.items)]
            return Items(node.line, node.column, values)
        if "${" not in node.text:
            return node
        if whole := _REFERENCE.fullmatch(node.text):
            return scope[whole.group(1)]
        parts = [scope[p].text if i % 2 else p for i, p in enumerate(_REFERENCE.split(node.text))]
        if sum(map(len, parts)) > MAX_SCALAR:
            self._problem(node, path, "too-much", f"more than {MAX_SCALAR:,} characters once expanded", "shorten it")
            return node
        text = "".join(parts)
        return Scalar(node.line, node.column, text, text, True)

    def _check_names(self, expanded: list[Fields], axes: dict[str, list[Scalar]]) -> None:
        name = self.root.items.get("name")
        if not axes or not isinstance(name, Scalar):
            return
        names = [e.items["name"] for e in expanded]
        texts = [n.text for n in names if isinstance(n, Scalar)]
        if len(set(texts)) == len(texts):
            return
        absent = [f"${{{axis}}}" for axis in axes if f"${{{axis}}}" not in name.text]
        what = "several combinations of the matrix have the same name"
        hint = f"put {listing(absent, 'and')} in the name" if absent else "a value is given twice"
        self._problem(name, ("name",), "duplicate-name", what, hint)

    def _problem(self, node: Node, path: tuple[Part, ...], code: str, message: str, hint: str) -> None:
        place = (node.line, node.column)
        self.problems.append(problem(self.file, place, code, message, hint=hint, path=path))


def _meant(inside: str, known: set[str]) -> str:
    for scope in ("vars", "matrix"):
        if f"{scope}.{inside.strip()}" in known:
            return f"write ${{{scope}.{inside.strip()}}}"
    if near := did_you_mean(inside, known):
        return near
    return "declare it under `vars` or `matrix`"
