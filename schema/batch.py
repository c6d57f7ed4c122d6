"""`batch`: how windows are put together for the model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from runner.schema.block import Block
from runner.schema.marks import NEUTRAL


class Batch(Block):
    """How windows are put together for the model. No result depends on it."""

    seconds: Annotated[float | None, NEUTRAL, Field(ge=1, le=36000)] = None
    """Padded seconds of audio in one batch; left out: sized to the device."""

    files: Annotated[int, NEUTRAL, Field(ge=1, le=4096)] = 64
    """Most windows in one batch."""
