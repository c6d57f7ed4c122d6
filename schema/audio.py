"""`audio`: how a recording becomes one signal."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from runner.schema.block import Block
from runner.schema.marks import RESULT


class Audio(Block):
    """How a recording becomes one signal."""

    channels: Annotated[Literal["mix", "left", "right", "each"], RESULT] = "mix"
    """`mix` averages the channels, `left` and `right` take one, `each` hears every channel by itself."""

    silence_db: Annotated[float, RESULT, Field(ge=-120, le=0)] = -60.0
    """Energy floor in dB below full scale: frames quieter than this are silence and yield no letters."""
