"""Which format a corpus is in: told by its columns, never guessed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from runner.llm.data.formats import alpaca, messages, prompt_completion, sharegpt, text
from runner.schema.errors import JobError

FORMATS: dict[str, ModuleType] = {
    "messages": messages,
    "sharegpt": sharegpt,
    "alpaca": alpaca,
    "prompt_completion": prompt_completion,
    "text": text,
}
FIRST = 20  # rows that are looked at


def detect(rows: Sequence[dict[str, Any]], *, name: str) -> str:
    """The one format that the first rows of ``name`` fit. Rows that fit none decide nothing: they are broken.

    Raises JobError with the columns and what to write where none fits, or more than one.
    """
    fitting = [one for one, module in FORMATS.items() if any(map(module.fits, rows))]
    if len(fitting) == 1:
        return fitting[0]
    found = listed(columns(rows))
    if fitting:
        raise JobError(
            f"{name}: its columns ({found}) fit more than one format: {', '.join(fitting)}; say which with format: "
            f"{fitting[0]}",
            failure="DataInvalid",
        )
    known = "; ".join(f"{one} reads {', '.join(module.COLUMNS)}" for one, module in FORMATS.items())
    raise JobError(
        f"{name}: its columns ({found}) fit no format: {known}; name yours with columns: {{yours: known}}",
        failure="DataInvalid",
    )


def why(format: str, rows: Sequence[dict[str, Any]]) -> str:  # noqa: A002 (the spec's own word)
    """What the format reads of these rows, and what is left: `columns messages, tools; not read: id`."""
    known = FORMATS[format].COLUMNS
    found = columns(rows)
    read = [name for name in known if name in found]
    left = [name for name in found if name not in known]
    return f"columns {', '.join(read) or 'none'}" + (f"; not read: {', '.join(left)}" if left else "")


def columns(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The columns that any of ``rows`` has, in order."""
    return list(dict.fromkeys(name for row in rows for name in row))


def listed(names: Iterable[str]) -> str:
    """Names of columns as messages list them."""
    return ", ".join(map(repr, names)) or "none"
