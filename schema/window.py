"""`window`: how long recordings are cut."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from runner.schema.block import Block
from runner.schema.marks import RESULT


class Window(Block):
    """How long recordings are cut; windows overlap by the context and are joined on frames."""

    length_s: Annotated[float, RESULT, Field(ge=1, le=120)] = 20.0
    """Length of one window in seconds, context included."""

    context_s: Annotated[float, RESULT, Field(ge=0.1, le=10)] = 1.0
    """Audio on each side of a window that is heard but not kept, in seconds."""

    @model_validator(mode="after")
    def _leaves_a_centre(self) -> Window:
        if 4 * self.context_s > self.length_s:  # more than half of the work would be heard twice
            raise PydanticCustomError("window", "context_s must be at most a quarter of length_s")
        return self
