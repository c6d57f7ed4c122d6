"""The model made ready for a run, and the plain parts that it is told of: its adapter and its base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runner import ranks
from runner.context import LedgerLine
from runner.kernels.checkpointing import Checkpointed
from runner.kernels.ledger import Wanted
from runner.kernels.patching import Applied
from runner.llm.model.flops import Flops
from runner.llm.packing import form, pieces
from runner.llm.packing.step import Step
from runner.precision import Precision
from runner.registry.forecast import max_documents
from runner.registry.strategy import Choice


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Small matrices beside frozen weights: LoRA (arXiv 2106.09685), rsLoRA (2312.03732), DoRA (2402.09353)."""

    type: Literal["lora", "rslora", "dora"]
    r: int
    alpha: float | None = None  # None: 2 r
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ("auto",)  # "auto": those that the registry knows for the family
    modules_to_save: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Base:
    """What a model was trained from, for whoever loads the adapter: as the plan pinned it."""

    ref: str  # "hf:owner/name@commit", "artifact:NAME@v3#path" or a folder as the spec wrote it
    digest: str


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A model that can be trained as it is; see ``begin.prepare``."""

    model: Any  # of transformers, or a PeftModel around it; on its device, in training mode
    tokenizer: Any
    applied: Applied  # patches
    lines: tuple[LedgerLine, ...]  # of what is no patch
    checkpointed: Checkpointed | None
    precision: Precision
    quantize: str
    adapter: Adapter | None
    base: Base | None  # None: from random weights
    grown: bool  # whether the vocabulary has more rows than the base
    facts: Mapping[str, Any]  # what the registry says of it
    config: Any  # of the model, as a plain transformers would save it
    parameters: int
    trainable: int
    flops: Flops
    forecast: Mapping[str, Any]  # of ``runner.llm.memory``, bytes; {} where the weights do not show their widths
    choice: Choice  # how several processes share the work
    packed: bool  # whether documents may share a row
    packing: Wanted
    packing_why: str

    def ends_with(self, token: int | None) -> None:
        """Let generation stop at ``token`` too, which ends a reply: the base may have been made for another one."""
        config = self.model.generation_config
        own = config.eos_token_id
        ends = {*(own if isinstance(own, list) else [own]), token} - {None}
        config.eos_token_id = sorted(ends) if len(ends) > 1 else next(iter(ends), None)

    def operations(self, step: Step) -> float:
        """Of the forward and backward pass of ``step`` in all processes: of its tokens without padding, and in the head
        of those that it computes, which are fewer where the loss is made on a CPU without logits."""
        without = any(line.applied for line in self.applied.ledger.of("linear_cross_entropy"))
        rows = step.targets if without and self.model.device.type == "cpu" else step.tokens
        return self.flops.token * step.tokens + self.flops.head * rows

    def layout(self, *, seq_len: int, rows: int, accumulate: int, long: pieces.Long) -> dict[str, Any]:
        """What a row and a step of this process hold: fields of ``Loader`` and ``StreamSteps``."""
        pad = self.tokenizer.pad_token_id
        return {
            "packed": self.packed,
            "seq_len": seq_len,
            "rows": rows,
            "accumulate": accumulate,
            "pad_id": 0 if pad is None else pad,  # whatever it is: it is masked, and never learned
            "long": long,
            "most_documents": max(1, max_documents(self.facts, seq_len * rows)),
            "rank": ranks.rank(),
            "size": ranks.size(),
            "hidden": self.facts["hidden"],
            "position_axes": form.position_axes(self.model.config),
            "positions": self.facts["max_positions"],
        }

    def identity(self, *, strategy: str) -> dict[str, Any]:
        """What decides the weights and was found here: checkpoints of anything else are not gone on with."""
        device = self.model.device.type
        return {"precision": self.precision.name, "device": device, "strategy": strategy, "packed": self.packed}

    @property
    def ledger(self) -> list[LedgerLine]:
        """All lines as a report wants them; patches as the probe left them."""
        packing = LedgerLine(what="packing", wanted=self.packing, applied=self.packed, why=self.packing_why)
        return [*self.lines, packing, *(LedgerLine(**line.fields()) for line in self.applied.ledger.lines)]
