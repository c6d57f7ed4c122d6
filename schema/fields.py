"""What is known about the fields of a block: sentence, type in words, default, mark. Read from the block itself."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from runner.schema.block import Block
from runner.schema.marks import Mark
from runner.schema.nodes import Part
from runner.schema.one_or_more import ONE_OR_MORE
from runner.schema.words import listing

SHORT_FORM = "x-short-form"  # in a block's json_schema_extra: the field that a plain text stands for
UNITS = {"s": "seconds", "seconds": "seconds", "ms": "milliseconds", "gb": "GB", "db": "dB", "hz": "Hz"}


@dataclass(frozen=True, kw_only=True)
class FieldView:
    """One field of a block."""

    name: str
    owner: type[Block]
    info: FieldInfo
    mark: Mark
    sentence: str
    shape: dict[str, Any]  # its JSON schema without the null that stands for "left out"
    inner: type[Block] | None  # the block it holds, by itself or in a list

    @property
    def required(self) -> bool:
        """Whether a spec must give it."""
        return self.info.is_required()

    @property
    def single(self) -> bool:
        """Whether a value by itself is a list of one."""
        return ONE_OR_MORE in self.info.metadata

    @property
    def words(self) -> str:
        """Type and bounds in words: `a number of seconds from 1 to 120`."""
        return expected(self, 0)


def _rank(name: str) -> int:
    # a stable sort: the fields that all kinds share stand first and last, the others as the class has them
    return {"kind": -3, "name": -2, "description": -1, "compute": 1, "apiVersion": 2}.get(name, 0)


@cache
def fields(block: type[Block]) -> dict[str, FieldView]:
    """All fields of ``block`` in the order in which people write them."""
    sentences = _sentences(block)
    shapes = block.model_json_schema()["properties"]
    views = {}
    for name in sorted(block.model_fields, key=_rank):
        info = block.model_fields[name]
        (mark,) = (m for m in info.metadata if isinstance(m, Mark))
        views[name] = FieldView(
            name=name,
            owner=block,
            info=info,
            mark=mark,
            sentence=sentences.get(name, ""),
            shape=_without_null(shapes[name]),
            inner=_inner(info.annotation),
        )
    return views


def at(block: type[Block], parts: Sequence[Part]) -> FieldView | None:
    """The field that ``parts`` leads to; positions in lists are skipped. None where there is no such field."""
    view: FieldView | None = None
    inner: type[Block] | None = block
    for part in parts:
        if isinstance(part, int):
            continue
        view = fields(inner).get(part) if inner is not None else None
        if view is None:
            return None
        inner = view.inner
    return view


def every(block: type[Block], under: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldView]]:
    """Each field with its path, fields of inner blocks after the field that holds them."""
    for name, view in fields(block).items():
        yield (*under, name), view
        if view.inner is not None:
            yield from every(view.inner, (*under, name))


def expected(view: FieldView, depth: int) -> str:
    """What a value must be, in words, ``depth`` lists below the field."""
    shape = view.shape
    for _ in range(depth):
        shape = _without_null(shape.get("items", {}))
    return _words(shape, view)


def short_form(block: type[Block]) -> str | None:
    """The field that a plain text stands for, if the block has one."""
    extra = block.model_config.get("json_schema_extra")
    return extra.get(SHORT_FORM) if isinstance(extra, dict) else None  # type: ignore[return-value]


def _words(shape: dict[str, Any], view: FieldView) -> str:
    if "const" in shape or "enum" in shape:
        return listing(shape.get("enum", [shape.get("const")]))
    match shape.get("type"):
        case "integer" | "number" as kind:
            unit = UNITS.get(view.name.rpartition("_")[2])
            noun = "a whole number" if kind == "integer" else "a number"
            words = noun + (f" of {unit}" if unit else "") + _bounds(shape)
        case "boolean":
            words = "true or false"
        case "string":
            words = "text" + _text_rule(shape, view)
        case "array":
            words = f"a list{_sizes(shape, 'minItems', 'maxItems', '')}, each {_words(shape.get('items', {}), view)}"
            words += "; or one by itself" if view.single else ""
        case "object" if "additionalProperties" in shape and view.inner is None:
            words = f"a mapping from names to {_words(shape['additionalProperties'], view)}"
        case _:
            words = _block_words(view)
    return words


def _block_words(view: FieldView) -> str:
    if view.inner is None:
        return "another value"
    short = short_form(view.inner)
    text = f"a mapping with {listing(fields(view.inner), 'and')}"
    return text + (f", or text, short for `{short}`" if short else "")


def _bounds(shape: dict[str, Any]) -> str:
    low, above = shape.get("minimum"), shape.get("exclusiveMinimum")
    high, below = shape.get("maximum"), shape.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    parts = [f"at least {low}"] if low is not None else [f"above {above}"] if above is not None else []
    parts += [f"at most {high}"] if high is not None else [f"below {below}"] if below is not None else []
    return f" {' and '.join(parts)}" if parts else ""


def _text_rule(shape: dict[str, Any], view: FieldView) -> str:
    if "pattern" in shape:  # the sentence says what it means, after the first colon; a test holds every field to that
        rule = view.sentence.partition(": ")[2].partition("; left out")[0].rstrip(".")
        return f": {rule}"
    return _sizes(shape, "minLength", "maxLength", " characters")


def _sizes(shape: dict[str, Any], least: str, most: str, of: str) -> str:
    low, high = shape.get(least, 0), shape.get(most)
    if high is not None:
        return f" of {low} to {high}{of}"
    return f" of at least {low}{of}" if low else ""


def _without_null(shape: dict[str, Any]) -> dict[str, Any]:
    choices = [s for s in shape.get("anyOf", []) if s.get("type") != "null"]
    if len(choices) == 1:
        return {**{k: v for k, v in shape.items() if k != "anyOf"}, **choices[0]}
    return shape


def _inner(annotation: Any) -> type[Block] | None:
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return annotation
    return next((found for found in map(_inner, get_args(annotation)) if found is not None), None)


def _sentences(block: type[Block]) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(block.__mro__):
        if issubclass(base, Block):
            found |= _module_sentences(base.__module__).get(base.__qualname__.rpartition(".")[2], {})
    return found


@cache
def _module_sentences(module: str) -> dict[str, dict[str, str]]:
    """Class name -> field -> the text under the field."""
    file = sys.modules[module].__file__
    assert file is not None
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    return {node.name: _under_fields(node) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def _under_fields(node: ast.ClassDef) -> dict[str, str]:
    texts = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        is_field = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if is_field and is_text and isinstance(below.value.value, str):  # type: ignore[attr-defined]
            texts[field.target.id] = " ".join(below.value.value.split())  # type: ignore[attr-defined]
    return texts
