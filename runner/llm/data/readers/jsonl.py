"""JSON lines: one object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runner.llm.data import fields
from runner.llm.data.readers import lines
from runner.llm.data.readers.row import Row, Rows


def records(path: Path, begin: int) -> Rows:
    """Empty lines are no rows."""
    row = 0
    for number, line in lines.of(path):
        if line is not None and not line.strip():
            continue
        if row >= begin:
            yield Row(number, lines.TOO_LONG if line is None else _record(line, first=number == 1))
        row += 1
    return row


def _record(line: bytes, *, first: bool) -> dict[str, Any] | str:
    try:
        found = json.loads(lines.text(line.rstrip(), first=first))
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}"
    except RecursionError:
        return "not JSON: nested too deep"
    except ValueError as error:  # of the encoding, or a number of more than 4,300 digits
        return str(error) if str(error).startswith("not UTF-8") else "not JSON: a number is too long"
    return checked(found, escaped=b"\\u" in line)


def checked(found: Any, *, escaped: bool) -> dict[str, Any] | str:
    """``found`` if it is an object of whole characters. Only an escape can be half of one."""
    if not isinstance(found, dict):
        return f"wrong type: a row must be an object, got {fields.kind(found)}"
    if escaped:
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            return f"not UTF-8: {error.object[error.start]!a} is half of a character"
    return found
