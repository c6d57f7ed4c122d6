"""`text`: a document in the column `text`."""

from __future__ import annotations

from runner.llm.data import fields
from runner.llm.data.fields import Record
from runner.llm.data.sample import BrokenSampleError, Text

COLUMNS = ("text",)


def fits(record: Record) -> bool:
    """Whether the row has the column."""
    return "text" in record


def sample(record: Record, *, place: str) -> Text:
    """The document; without anything but white space it is broken."""
    text = fields.text(record, "text")
    if not text or text.isspace():
        raise BrokenSampleError("empty text: 'text'")
    return Text(place=place, text=text)
