"""All that a run asks of the model that it trains, before there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from runner.kernels.ledger import Wanted
from runner.llm.model.prepared import Adapter, Base
from runner.precision import Precision
from runner.registry.demand import Checkpointing, Shape, chunks
from runner.registry.family import Family
from runner.registry.strategy import Offload


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The same wishes give the same bits."""

    facts: Mapping[str, Any]  # what ``runner.registry.resolve`` says of the model
    family: Family
    tokenizer: Any  # of ``vocabulary.open``
    precision: Precision  # of frozen weights; what is trained is in fp32, and 16-bit products need autocast
    optimize: Mapping[str, Wanted]  # attention, kernels, loss_chunking, quantised_lora
    seq_len: int  # tokens of a row
    rows: int = 1  # of a forward pass
    quantize: str = "none"  # format of frozen linear layers
    adapter: Adapter | None = None  # None: all weights are trained
    added: tuple[str, ...] = ()  # tokens that are new, as ``vocabulary.open`` says
    multiple: int = 1  # of rows of the embeddings
    checkpointing: Checkpointing = "auto"  # auto asks the forecast
    offload: bool = False  # layers' inputs that checkpointing keeps wait in the memory of the host
    packing: Wanted = "preferred"
    optimizer: str = "adamw"  # this and the next three are for the forecast
    strategy: str = "auto"
    offload_state: Offload = "none"
    stage: int | None = None  # of the user's own DeepSpeed configuration
    device: str = "cpu"
    seed: int = 0  # of an adapter's matrices
    memory_bytes: int | None = None  # of the host that the process may take; None: its share of the machine
    base: Base | None = None
    trust_remote_code: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights as they are loaded."""
        return torch.float32 if self.adapter is None else self.precision.dtype

    @property
    def shape(self) -> Shape:
        """What the forecast is of."""
        return Shape(
            facts=self.facts,
            seq_len=self.seq_len,
            rows=self.rows,
            precision=self.precision.name,
            quantize=self.quantize,
            rank=None if self.adapter is None else self.adapter.r,
            whole=bool(self.added) or bool(self.adapter and self.adapter.modules_to_save),
            chunked=self.optimize.get("loss_chunking", "off") != "off" and chunks(self.facts),
            optimizer=self.optimizer,
            checkpointing=self.checkpointing,
            strategy=self.strategy,
            offload=self.offload_state,
            stage=self.stage,
        )
