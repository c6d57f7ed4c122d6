"""JSON Schema (draft-07) of all specs, for editors: yaml-language-server reads draft-07 and ignores discriminators.

Made of pydantic's schema of each kind: `kind` picks a branch by if/then, so that an editor blames the right field; the
sentences of the fields become descriptions; `${...}` is accepted wherever a single value stands. What a schema cannot
say (that a variable is declared, that 3.0 is no whole number, what validators say across fields) stays with the loader.
"""

from __future__ import annotations

import json
from typing import Any

from runner.schema.block import Block
from runner.schema.expand import ENVELOPE, NAME
from runner.schema.fields import SHORT_FORM, FieldView, every, fields
from runner.schema.kinds import job_class, kinds

Schema = dict[str, Any]

_SCALAR = {"type": ["string", "number", "boolean", "null"]}
_REFERENCE = {"$ref": "#/definitions/reference"}
_AXIS = {"type": "array", "minItems": 1, "items": _SCALAR}


def text() -> str:
    """The schema as a file's content."""
    return json.dumps(build(), indent=2, ensure_ascii=False) + "\n"


def build() -> Schema:
    """The schema of one document."""
    definitions: Schema = {
        "reference": {
            "description": "`${vars.NAME}` or `${matrix.NAME}`.",
            "type": "string",
            "pattern": rf"\$\{{(vars|matrix)\.{NAME}\}}",
        }
    }
    branches = []
    for kind in kinds():
        job = job_class(kind)
        definitions |= _definitions(job)
        branches.append(
            {
                "if": {"required": ["kind"], "properties": {"kind": {"const": kind}}},
                "then": {"$ref": f"#/definitions/{job.__name__}"},
            }
        )
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "runner spec",
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": _described({"enum": list(kinds())}, "What this spec is.")},
        "allOf": branches,
        "definitions": definitions,
    }


def _definitions(job: type[Block]) -> Schema:
    """The definition of a kind and of each of its blocks, by class name."""
    raw = job.model_json_schema(ref_template="#/definitions/{model}")
    found = {name: _definition(block, raw["$defs"][name]) for name, block in _blocks(job).items()}
    top = _definition(job, {k: v for k, v in raw.items() if k != "$defs"})
    top["properties"]["kind"] = {"const": raw["properties"]["kind"]["const"]}
    top["properties"] |= {"vars": _names(_SCALAR, ENVELOPE["vars"]), "matrix": _names(_AXIS, ENVELOPE["matrix"])}
    return {job.__name__: top, **found}


def _blocks(job: type[Block]) -> dict[str, type[Block]]:
    return {view.inner.__name__: view.inner for _, view in every(job) if view.inner is not None}


def _definition(block: type[Block], raw: Schema) -> Schema:
    short = raw.pop(SHORT_FORM, None)
    raw.pop("title", None)
    views = fields(block)
    raw["properties"] = {name: _property(raw["properties"][name], view) for name, view in views.items()}
    if "description" in raw:
        raw["markdownDescription"] = raw["description"]
    if short is None:
        return raw
    plain = {k: v for k, v in raw["properties"][short].items() if not k.endswith("escription")}
    return {"anyOf": [raw, plain]}


def _property(raw: Schema, view: FieldView) -> Schema:
    shape = {k: v for k, v in raw.items() if k not in ("title", "default", "examples")}
    # draft-07 ignores what stands beside a $ref
    result: Schema = {"allOf": [shape]} if "$ref" in shape else _with_references(shape)
    if "default" in raw and "$ref" not in shape:
        result["default"] = raw["default"]
    if "examples" in raw:
        result["examples"] = raw["examples"]
    if view.single:
        result = {
            **{k: v for k, v in result.items() if k in {"default", "examples"}},
            "anyOf": [result, result["items"]],
        }
    return _described(result, view.sentence)


def _with_references(shape: Schema) -> Schema:
    """``shape``, where `${...}` may stand for each single value."""
    if "anyOf" in shape:
        choices = [_with_references(choice) if choice.get("type") == "array" else choice for choice in shape["anyOf"]]
        is_single = all(choice.get("type") in ("string", "number", "integer", "boolean", "null") for choice in choices)
        return {"anyOf": [*choices, _REFERENCE] if is_single and not _is_free_text(choices[0]) else choices}
    if shape.get("type") == "array":
        items = shape["items"]
        return {**shape, "items": {"allOf": [items]} if "$ref" in items else _with_references(items)}
    return shape if _is_free_text(shape) or shape.get("type") == "object" else {"anyOf": [shape, _REFERENCE]}


def _is_free_text(shape: Schema) -> bool:
    return shape.get("type") == "string" and not {"pattern", "enum", "const"} & set(shape)


def _names(value: Schema, sentence: str) -> Schema:
    shape = {"type": "object", "minProperties": 1, "propertyNames": {"pattern": f"^{NAME}$"}}
    return _described({**shape, "additionalProperties": value}, sentence)


def _described(schema: Schema, sentence: str) -> Schema:
    return {**schema, "description": sentence, "markdownDescription": sentence}
