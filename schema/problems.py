"""What pydantic refuses, as problems with a place, what is allowed and what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core.core_schema import ErrorType

from runner.schema.errors import Problem
from runner.schema.expand import ENVELOPE
from runner.schema.fields import FieldView, at, every, expected, fields
from runner.schema.job import Job
from runner.schema.kinds import job_class, kind_of, kinds
from runner.schema.nodes import Fields, Items, Node, Part, Scalar, find
from runner.schema.scalars import Value, resolve
from runner.schema.words import MAX_SHOWN, did_you_mean, listing, nearest, path_text, problem, quoted, secret, shown

MAX_PROBLEMS = 100  # of one document; each unknown field costs a search for what was meant

_BUILTIN = frozenset(get_args(ErrorType)) - {"value_error", "assertion_error"}  # the rest is worded by our validators
_CODES = {
    **dict.fromkeys(("literal_error", "string_pattern_mismatch"), "not-allowed"),
    **dict.fromkeys(("greater_than", "greater_than_equal", "less_than", "less_than_equal"), "out-of-range"),
    "finite_number": "out-of-range",
    **dict.fromkeys(("string_too_short", "string_too_long", "too_short", "too_long"), "length"),
}
_NUMBER_LIKE = re.compile(r"[-+]?[0-9][0-9_.,]*\s*[a-zA-Z%]*")
_BOOLEANS = {**dict.fromkeys(("yes", "on", "true"), "true"), **dict.fromkeys(("no", "off", "false"), "false")}


def problems_of(error: ValidationError, *, job: type[Job], root: Fields, file: str) -> list[Problem]:
    """One problem for each thing that pydantic refused, placed in the document ``root``."""
    details = [d for d in error.errors(include_url=False, include_input=False) if not _is_reference(d, root)]
    found = [_problem(detail, job=job, root=root, file=file) for detail in details[:MAX_PROBLEMS]]
    if len(details) > MAX_PROBLEMS:
        what = f"{len(details) - MAX_PROBLEMS:,} more problems in this document"
        first = find(root, details[MAX_PROBLEMS]["loc"])
        found.append(problem(file, first.key, "more", what, hint="solve the others first"))
    return found


def _is_reference(detail: Mapping[str, Any], root: Fields) -> bool:
    # left over when a document could not be expanded, for which there is a problem already
    node = find(root, detail["loc"]).node
    return detail["type"] != "extra_forbidden" and isinstance(node, Scalar) and "${" in node.text


def _problem(detail: Mapping[str, Any], *, job: type[Job], root: Fields, file: str) -> Problem:
    kind: str = detail["type"]
    loc: tuple[Part, ...] = detail["loc"]
    found = find(root, loc)
    view = at(job, loc)
    line, column = found.place
    if kind == "extra_forbidden":
        line, column = found.key
        code, message, hint = "unknown-field", *_unknown(job, loc)
    elif kind == "missing" and view is not None:
        line, column = found.key
        code, message, hint = "missing-field", *_missing(view)
    elif kind in _BUILTIN and view is not None:
        code, message, hint = _CODES.get(kind, "wrong-type"), *_wrong(view, loc, found.node)
    else:
        # pydantic puts "Value error, " before what a validator says
        code, message, hint = kind.replace("_", "-"), str(detail.get("ctx", {}).get("error", detail["msg"])), ""
    known = [part for part in (loc if view else loc[:-1]) if isinstance(part, str)]
    hint = hint or f"see `runner explain {path_text([kind_of(job), *known])}`"
    return problem(file, (line, column), code, message, hint=hint, path=loc)


def _unknown(job: type[Job], loc: tuple[Part, ...]) -> tuple[str, str]:
    word = str(loc[-1])
    holder = at(job, loc[:-1])
    siblings = list(fields(job if holder is None else holder.inner or job))
    if holder is None:
        siblings += ENVELOPE
    return f"unknown field {quoted(word)}, allowed are {listing(siblings, 'and')}", _meant(job, word, siblings)


def _meant(job: type[Job], word: str, siblings: list[str]) -> str:
    """What was meant by ``word``: this name elsewhere, else a name like it here or elsewhere, else another kind's."""
    paths = [path for path, _ in every(job)] + [(name,) for name in ENVELOPE]
    homes = [path[:-1] for path in paths if path[-1] == word]
    if homes:
        where = listing(f"under `{path_text(home)}`" if home else "at the top level" for home in homes)
        return f"`{word}` belongs {where}"
    if near := nearest(word, siblings):
        return f"did you mean {near!r}?"
    if near := nearest(word, {path[-1] for path in paths}):
        return f"did you mean `{path_text(next(path for path in paths if path[-1] == near))}`?"
    others = [kind for kind in kinds() if job_class(kind) is not job and word in fields(job_class(kind))]
    return f"`{word}` is a field of kind {listing(others)}" if others else ""


def _missing(view: FieldView) -> tuple[str, str]:
    return f"this field is required: {view.words}", f"add `{view.name}: {_example(view)}`"


def _example(view: FieldView) -> str:
    if view.info.examples:
        value = view.info.examples[0]
        return value if isinstance(value, str) else json.dumps(value)
    inner = [f"{v.name}: {_example(v)}" for v in (fields(view.inner).values() if view.inner else ()) if v.info.examples]
    block = f"{{{', '.join(inner)}}}" if inner else "..."
    return f"[{block}]" if view.shape.get("type") == "array" else block


def _wrong(view: FieldView, loc: tuple[Part, ...], node: Node) -> tuple[str, str]:
    depth = 0
    while isinstance(loc[-1 - depth], int):
        depth += 1
    wanted, got = expected(view, depth), shown(node, loc)
    origin = f" (from {node.origin})" if isinstance(node, Scalar) and node.origin else ""
    return f"expected {wanted}; got {got}{origin}", _advice(view, depth, loc, node)


def _advice(view: FieldView, depth: int, loc: tuple[Part, ...], node: Node) -> str:
    shape = view.shape
    for _ in range(depth):
        shape = shape.get("items", {})
    kind = shape.get("type", "object")
    if not isinstance(node, Scalar):
        return _advice_on_collection(kind, node)
    if node.value is None:
        return "give a value or remove the line"
    if secret(node.text, loc):
        return ""
    if kind == "array":
        return (
            f"put it in brackets: [{json.dumps(node.text, ensure_ascii=False)}]" if len(node.text) < MAX_SHOWN else ""
        )
    return _advice_on_scalar(kind, shape, node)


def _advice_on_collection(kind: str, node: Items | Fields) -> str:
    if isinstance(node, Fields):
        return "write a list, each line with a `-`" if kind == "array" else ""
    if kind == "object":
        return "write `field: value`, without brackets or `-`"
    return "remove the brackets or the `-`" if kind != "array" and len(node.items) == 1 else ""


def _advice_on_scalar(kind: str, shape: Mapping[str, Any], node: Scalar) -> str:
    text = node.text
    if "enum" in shape or "const" in shape:
        return did_you_mean(text, map(str, shape.get("enum", [shape.get("const")])))
    if kind == "boolean":
        meant = _BOOLEANS.get(text.lower())
        return f"write {meant} without quotes" if meant else ""
    if kind in ("integer", "number"):
        return _advice_on_number(node)
    if "pattern" in shape:
        return _advice_on_pattern(shape, node)
    return f"put it in quotes: {text!r}" if not isinstance(node.value, str) else ""


def _advice_on_pattern(shape: Mapping[str, Any], node: Scalar) -> str:
    if re.fullmatch(shape["pattern"], node.text):
        return f"put it in quotes: {node.text!r}"
    meant = re.sub(r"[^a-z0-9]+", "-", node.text.lower()).strip("-")
    if re.fullmatch(shape["pattern"], meant):
        return f"did you mean {meant!r}?"
    example = next(iter(shape.get("examples", [shape.get("default")])))
    return f"for example {example!r}" if isinstance(example, str) else ""


def _advice_on_number(node: Scalar) -> str:
    if node.quoted and isinstance(_resolved(node.text), int | float) and not isinstance(_resolved(node.text), bool):
        return "write it without quotes"
    if isinstance(node.value, str) and _NUMBER_LIKE.fullmatch(node.text):
        return "write digits and a point only, a unit stands in the field's name"
    if isinstance(node.value, float) and node.value.is_integer():
        return f"write {int(node.value)}"
    return ""


def _resolved(text: str) -> Value:
    try:
        return resolve(text)
    except ValueError:
        return text
