"""A good spec, and what the loader says about a broken one."""

from __future__ import annotations

import io
from collections.abc import Mapping

from runner.schema.errors import Problem, SpecError
from runner.schema.load import Loaded, load

GOOD = """kind: asr-transcribe
name: a
model: ./m
data: {audio: [x.flac]}
"""


def load_text(text: str | bytes, **overrides: str) -> list[Loaded]:
    """Load ``text`` as if it came through stdin."""
    data = text.encode() if isinstance(text, str) else text
    return load(["-"], stdin=io.TextIOWrapper(io.BytesIO(data)), overrides=overrides)


def problems(text: str | bytes, overrides: Mapping[str, str] | None = None) -> list[Problem]:
    """The problems of ``text``; none when it is valid. Any other exception is a failure."""
    try:
        load_text(text, **(overrides or {}))
    except SpecError as error:
        return list(error.problems)
    return []


def lines(text: str | bytes, overrides: Mapping[str, str] | None = None) -> list[str]:
    """The problems as they are printed, without the file name."""
    return [str(problem).removeprefix("-:") for problem in problems(text, overrides)]


def fits(line: str, pattern: str) -> bool:
    """Whether ``line`` is ``pattern``, in which ` ... ` stands for any text."""
    parts = pattern.split(" ... ")
    at = 0
    for part in parts:
        at = line.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return line.startswith(parts[0]) and line.endswith(parts[-1])
