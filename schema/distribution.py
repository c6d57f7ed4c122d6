"""`distribution`: how several processes train one model."""

from __future__ import annotations

from typing import Annotated, Literal

from runner.schema.block import Block
from runner.schema.marks import FILE, NEUTRAL
from runner.schema.reference import TextFile


class Distribution(Block):
    """How several processes (`compute.workers`) train one model. It changes who computes, never what, but rounding, and
    which values dropout and NEFTune draw."""

    strategy: Annotated[Literal["auto", "ddp", "fsdp2", "zero2", "zero3"], NEUTRAL] = "auto"
    """`ddp` keeps all in each process, `fsdp2` and `zero3` share weights, gradients and optimiser, `zero2` the latter
    two; `auto` takes the plainest whose forecast fits and says why."""

    offload: Annotated[Literal["none", "optimizer", "all"], NEUTRAL] = "none"
    """What waits in the memory of the host: the optimiser's state, or parameters too (zero2, zero3, fsdp2)."""

    deepspeed: Annotated[TextFile | None, FILE] = None
    """A DeepSpeed configuration (JSON), in place of the generated one; its values win."""
