"""What a plain YAML scalar means: the YAML 1.2 core schema, where `no` is text, `1e-4` a number and `010` ten."""

from __future__ import annotations

import math
import re

Value = str | int | float | bool | None

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NUMBER_START = frozenset("+-.0123456789")


def resolve(text: str) -> Value:
    """Value of a plain scalar.

    Raises ValueError for a number that 64 bits do not hold, as an integer or as a float.
    """
    if text[:1] not in _NUMBER_START:
        return _WORDS.get(text, text)
    if _INT.fullmatch(text):
        return _integer(text, 10)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if math.isinf(value):
            raise ValueError("the number is beyond what a 64-bit float holds")
        return value
    if _BASED.fullmatch(text):
        return _integer(text[2:], 8 if text[1] == "o" else 16)
    return float(text.replace(".", "")) if _SPECIAL.fullmatch(text) else text


def _integer(digits: str, base: int) -> int:
    # 64 bits need at most 22 octal digits; longer text is refused before int(), whose time grows with its square
    value = int(digits, base) if len(digits) <= 24 else 1 << 64
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError("the number is beyond 64 bits")
    return value
