"""One value where a list may stand: `train: chat.jsonl` means `train: [chat.jsonl]`."""

from __future__ import annotations

from typing import Any

from pydantic import BeforeValidator


def _listed(value: Any) -> Any:
    return value if value is None or isinstance(value, list) else [value]


ONE_OR_MORE = BeforeValidator(_listed)
"""For fields that are lists: a value by itself is a list of one."""
