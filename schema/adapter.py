"""`adapter`: small matrices that are trained beside the frozen weights of a language model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from runner.schema.block import Block
from runner.schema.marks import RESULT
from runner.schema.one_or_more import ONE_OR_MORE

Module = Annotated[str, Field(min_length=1, max_length=200)]


class LanguageAdapter(Block):
    """Train small matrices beside frozen weights (LoRA)."""

    type: Annotated[Literal["none", "lora", "rslora", "dora"], RESULT] = "none"
    """`lora`; `rslora`, whose scale is alpha / sqrt(r); `dora`, which also learns magnitudes; `none` trains all."""

    r: Annotated[int, RESULT, Field(ge=1, le=1024)] = 16
    """Rank of the matrices."""

    alpha: Annotated[float | None, RESULT, Field(gt=0, le=100_000)] = None
    """Their weight is `alpha / r`; left out: `2 r`."""

    dropout: Annotated[float, RESULT, Field(ge=0, lt=1)] = 0.0
    """Share of their inputs dropped."""

    target_modules: Annotated[list[Module], RESULT, ONE_OR_MORE, Field(min_length=1)] = ["auto"]  # noqa: RUF012
    """Names of the linear layers that get one; `auto` stands for those that the registry knows for the family."""

    modules_to_save: Annotated[list[Module], RESULT] = []  # noqa: RUF012
    """Modules that are trained whole beside it, for example `embed_tokens` and `lm_head`; new `tokens` add them by
    themselves."""
