"""`prompt_completion`: a plain `prompt` and the `completion` that follows it."""

from __future__ import annotations

from runner.llm.data import fields
from runner.llm.data.fields import Record
from runner.llm.data.sample import BrokenSampleError, Completion

COLUMNS = ("prompt", "completion")


def fits(record: Record) -> bool:
    """Whether the row has both columns."""
    return all(name in record for name in COLUMNS)


def sample(record: Record, *, place: str) -> Completion:
    """Both texts; the prompt may be empty."""
    for name in COLUMNS:
        if isinstance(record.get(name), list):
            raise BrokenSampleError(f"wrong type: {name!r} must be text; a list of messages is of format 'messages'")
    prompt, completion = (fields.text(record, name) for name in COLUMNS)
    if not completion or completion.isspace():
        raise BrokenSampleError("empty text: 'completion'")
    return Completion(place=place, prompt=prompt, completion=completion)
