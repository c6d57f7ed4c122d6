"""Fields of a row as the formats ask for them. What is wrong is a BrokenSampleError, ``class: particulars``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from runner.llm.data.sample import BrokenSampleError

Record = Mapping[str, Any]


def text(record: Record, name: str, *, default: str | None = None) -> str:
    """The text in ``name``; ``default`` where the row has none."""
    value = record.get(name)
    if value is None:
        if default is not None:
            return default
        raise BrokenSampleError(f"missing field: {name!r}")
    if not isinstance(value, str):
        raise BrokenSampleError(f"wrong type: {name!r} must be text, got {kind(value)}")
    return value


def listed(record: Record, name: str) -> list[Any]:
    """The list in ``name``, which may stand there as JSON: columns of tables often hold it so."""
    value = record.get(name)
    if value is None:
        raise BrokenSampleError(f"missing field: {name!r}")
    found = decoded(value)
    if not isinstance(found, list):
        raise BrokenSampleError(f"wrong type: {name!r} must be a list, got {kind(value)}")
    return found


def decoded(value: Any) -> Any:
    """``value``, or what it says where it is JSON of a list or an object."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def pruned(value: Any) -> Any:
    """``value`` without keys that hold nothing: arrow gives each object the keys of all others."""
    if isinstance(value, dict):
        return {key: pruned(inner) for key, inner in value.items() if inner is not None}
    return [pruned(inner) for inner in value] if isinstance(value, list) else value


def kind(value: Any) -> str:
    """The type of a value in a word."""
    names = {"NoneType": "null", "str": "text", "list": "a list", "dict": "an object", "bool": "true or false"}
    numbers = {"int": "a number", "float": "a number"}
    return (names | numbers).get(type(value).__name__, type(value).__name__)
