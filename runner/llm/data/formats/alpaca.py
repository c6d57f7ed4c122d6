"""`alpaca`: an `instruction`, an `input` that may be empty or left out, and the `output`. One turn of a conversation.

Taori et al. 2023, "Stanford Alpaca". Their English frame around the two texts is not used: the model's own template
says who speaks.
"""

from __future__ import annotations

from runner.llm.data import fields
from runner.llm.data.fields import Record
from runner.llm.data.formats import messages
from runner.llm.data.sample import BrokenSampleError, Chat

COLUMNS = ("instruction", "input", "output", "system")


def fits(record: Record) -> bool:
    """Whether the row has the columns that must be there."""
    return "instruction" in record and "output" in record


def sample(record: Record, *, place: str) -> Chat:
    """A conversation of one turn: the input stands below the instruction, after an empty line."""
    instruction, output = fields.text(record, "instruction"), fields.text(record, "output")
    given, system = fields.text(record, "input", default=""), fields.text(record, "system", default="")
    question = "\n\n".join(part for part in (instruction, given) if part)
    if not question.strip():
        raise BrokenSampleError("empty text: 'instruction'")
    turns = [{"role": "system", "content": system}] if system else []
    turns += [{"role": "user", "content": question}, {"role": "assistant", "content": output}]
    return Chat(place=place, messages=messages.checked(turns))
