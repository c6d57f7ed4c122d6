"""The base of every block that users write: strict, frozen, closed.

The sentence under a field is its documentation. `runner.schema.fields` reads it from the source when somebody asks;
pydantic's ``use_attribute_docstrings`` would parse every module at import (0.12 of the 0.21 CPU-s that importing one
kind then takes).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Block(BaseModel):
    """A part of a spec. Unknown keys, other types and NaN are refused; values are never shown in errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )
