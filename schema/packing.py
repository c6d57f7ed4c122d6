"""`packing`: several documents in one row. `packing: required` is short for `packing: {mode: required}`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from runner.schema.block import Block
from runner.schema.marks import RESULT


class Packing(Block):
    """Rows are filled with whole documents that do not see each other: no padding is computed."""

    model_config = ConfigDict(json_schema_extra={"x-short-form": "mode"})

    mode: Annotated[Literal["required", "preferred", "off"], RESULT] = "preferred"
    """`required` stops the job where documents of a row could see each other, `preferred` then pads, and says so."""

    long: Annotated[Literal["split", "truncate", "drop"], RESULT] = "truncate"
    """A document longer than `batch.seq_len`: `split` goes on in another row, `truncate` loses its end, `drop` leaves
    it out; each is counted."""

    look_ahead: Annotated[int, RESULT, Field(ge=1, le=10_000_000)] = 4096
    """Documents that rows are filled from at a time, the longest first into the fullest row that takes it. Of a stream:
    samples that are read, shuffled and filled into rows at a time."""

    @model_validator(mode="before")
    @classmethod
    def _from_mode(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value
