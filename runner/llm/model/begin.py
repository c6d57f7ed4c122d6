"""A model made ready to be trained: loaded or made, grown, quantised, with its adapter, patched and checkpointed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from runner.context import LedgerLine
from runner.kernels.ledger import Wanted
from runner.llm.model import adapters, load, patches, vocabulary
from runner.llm.model.prepared import Adapter, Base, Prepared
from runner.precision import Precision
from runner.registry.family import Family
from runner.registry.parameters import of_images


def prepare(
    folder: Path,
    *,
    facts: Mapping[str, Any],
    family: Family,
    tokenizer: Any,
    precision: Precision,
    quantize: str = "none",
    adapter: Adapter | None = None,
    added: Sequence[str] = (),
    multiple: int = 1,
    optimize: Mapping[str, Wanted],
    checkpointing: str = "auto",
    offload: bool = False,
    seq_len: int,
    rows: int = 1,
    packing: Wanted = "preferred",
    device: str = "cpu",
    seed: int = 0,
    memory_bytes: int | None = None,
    base: Base | None = None,
    trust_remote_code: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Prepared:
    """Everything that comes before the first step but the probe. The same arguments give the same bits.

    Args:
        folder: of a model as transformers saves it; ``tokenizer`` is that of ``vocabulary.open``, which says what was
            ``added`` to it.
        facts, family: what ``runner.registry.resolve`` says of it.
        optimize: attention, kernels, loss_chunking and quantised_lora: required, preferred or off.
        checkpointing: required, preferred, off, or auto, which asks the forecast.
        seq_len, rows: tokens of a row and rows of a forward pass, for the forecast.
        memory_bytes: of the device; None asks it.

    Weights that are trained are in fp32, frozen ones in ``precision``; the products of 16-bit runs need autocast.
    Raises JobError: ModelInvalid for weights and names that do not fit, Infeasible for what is required and cannot be
    had or does not fit into memory.
    """
    dtype = torch.float32 if adapter is None else precision.dtype
    model = load.load(
        folder,
        family=family,
        dtype=dtype,
        quantize=quantize,
        quantised=facts["quantised"],
        device=device,
        trust_remote_code=trust_remote_code,
    )
    growth = vocabulary.grow(model, tokenizer, added=added, multiple=multiple)
    if growth.added or growth.resized:
        say(_of_growth(growth))
    plain = _plain_config(model, precision)
    if adapter is None:
        _freeze_images(model, precision.dtype)
    else:
        model = adapters.add(model, adapter, facts=facts, grown=bool(growth.added), base=base, seed=seed)
    for config in (model.config, model.config.get_text_config()):
        config.use_cache = False
    model.train()
    asked = patches.wanted(facts["patches"], optimize, adapter=adapter is not None)
    applied = patches.apply(model, asked)
    lines = [LedgerLine(what="precision", applied=precision.name != "fp32", why=precision.why)]
    return Prepared(
        model=model,
        tokenizer=tokenizer,
        applied=applied,
        lines=(*lines, *patches.unwanted(facts["patches"], optimize)),
        checkpointed=None,
        precision=precision,
        quantize=quantize,
        adapter=adapter,
        base=base,
        grown=growth.resized,
        config=plain,
        parameters=sum(one.numel() for one in model.parameters()),
        trainable=sum(one.numel() for one in model.parameters() if one.requires_grad),
        flops_per_token=0.0,
        forecast={},
        packed=packing != "off",
        packing=packing,
        packing_why="off" if packing == "off" else "as wanted",
        device=device,
        optimize=dict(optimize),
    )


def _plain_config(model: Any, precision: Precision) -> Any:
    """The config as it is saved, before anything of a training run is in it."""
    plain = type(model.config).from_dict(model.config.to_dict())
    plain.architectures = [type(model).__name__]
    plain.dtype = precision.dtype
    return plain


def _freeze_images(model: Any, dtype: torch.dtype) -> None:
    """A tower for images and what joins it to the text stay as they are."""
    for name, one in model.named_parameters():
        if of_images(name):
            one.requires_grad_(False)
            one.data = one.data.to(dtype)


def _of_growth(growth: vocabulary.Growth) -> str:
    tokens = f"{len(growth.added)} new tokens" if growth.added else "no new tokens"
    return f"{tokens}; embeddings have {growth.rows[1]} rows instead of {growth.rows[0]}"
