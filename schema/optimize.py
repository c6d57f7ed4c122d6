"""`optimize`: what is done to train faster and in less memory."""

from __future__ import annotations

from typing import Annotated, Literal

from runner.schema.block import Block
from runner.schema.marks import NEUTRAL, RESULT

Wanted = Literal["required", "preferred", "off"]


class Optimize(Block):
    """What is done to train faster and in less memory; the ledger tells of it. What is `required` and cannot be had
    stops the job, what is `preferred` is then left out, and `off` is never done."""

    attention: Annotated[Wanted, RESULT] = "preferred"
    """The fastest attention kernel for each shape, documents of a packed row kept apart."""

    kernels: Annotated[Wanted, RESULT] = "preferred"
    """Fused norms, rotary positions, gated MLPs and experts; on CPUs, where they gain nothing, they are skipped."""

    loss_chunking: Annotated[Wanted, RESULT] = "preferred"
    """The head and its loss without whole logits, and at labelled positions alone."""

    quantised_lora: Annotated[Wanted, RESULT] = "preferred"
    """LoRA layers in one operation with their base, quantised or not."""

    checkpointing: Annotated[Literal["auto", "required", "preferred", "off"], NEUTRAL] = "auto"
    """Compute activations again instead of keeping them; `auto`: where the forecast says that they would not fit."""

    offload: Annotated[bool, NEUTRAL] = False
    """What checkpointing keeps waits in the memory of the host; for GPUs."""

    probe: Annotated[bool, NEUTRAL] = True
    """Check every patch on these weights and this device before the first step, and that packed documents do not see
    each other."""
