"""A model made ready to be trained: loaded, grown, quantised, with its adapter, patched, checkpointed and probed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from runner import ranks
from runner.context import LedgerLine
from runner.kernels import probe as kernels
from runner.kernels.checkpointing import Checkpointed, checkpointed
from runner.kernels.ledger import Wanted
from runner.kernels.patching import PatchError
from runner.llm import memory
from runner.llm.memory import Checkpointing, Settled
from runner.llm.model import adapters, flops, load, patches, probing, vocabulary
from runner.llm.model.prepared import Adapter, Base, Prepared
from runner.llm.packing import form
from runner.precision import Precision
from runner.registry.family import Family
from runner.registry.parameters import of_images
from runner.registry.strategy import Offload
from runner.schema.errors import JobError

NOTHING = "Nothing would be learned"  # how the probe's complaint of a loss or gradient begins


def prepare(
    folder: Path,
    *,
    facts: Mapping[str, Any],
    family: Family,
    tokenizer: Any,
    precision: Precision,
    optimize: Mapping[str, Wanted],
    seq_len: int,
    rows: int = 1,
    quantize: str = "none",
    adapter: Adapter | None = None,
    added: Sequence[str] = (),
    multiple: int = 1,
    checkpointing: Checkpointing = "auto",
    offload: bool = False,
    packing: Wanted = "preferred",
    optimizer: str = "adamw",
    strategy: str = "auto",
    offload_state: Offload = "none",
    stage: int | None = None,
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
        seq_len, rows, optimizer, strategy, offload_state, stage: of the run, for the forecast of its memory.
        checkpointing: auto asks the forecast; with ``offload``, layers' inputs wait in the memory of the host.
        memory_bytes: that the process may take of the host; None: its share of the machine.

    Weights that are trained are in fp32, frozen ones in ``precision``; the products of 16-bit runs need autocast.
    Raises JobError: ModelInvalid for weights and names that do not fit, Infeasible for what is required and cannot be
    had or does not fit into memory.
    """
    chunked = optimize.get("loss_chunking", "off") != "off" and any(
        one["patch"] == "linear_cross_entropy" and one["wanted"] for one in facts["patches"]
    )
    run = memory.Run(
        facts=facts,
        seq_len=seq_len,
        rows=rows,
        precision=precision.name,
        quantize=quantize,
        rank=None if adapter is None else adapter.r,
        whole=bool(added),
        chunked=chunked,
        optimizer=optimizer,
        checkpointing=checkpointing,
        strategy=strategy,
        offload=offload_state,
        stage=stage,
    )
    settled = memory.settle(run, memory=memory.available(device, limit=memory_bytes))
    model = load.load(
        folder,
        family=family,
        dtype=torch.float32 if adapter is None else precision.dtype,
        quantize=quantize,
        quantised=facts["quantised"],
        device=device,
        trust_remote_code=trust_remote_code,
    )
    growth = vocabulary.grow(model, tokenizer, added=added, multiple=multiple)
    if growth.added or growth.resized:
        say(_of_growth(growth))
    plain = _plain_config(model, precision)
    packed, packing_why = _packing(plain, packing)
    if adapter is None:
        _freeze_images(model, precision.dtype)
    else:
        model = adapters.add(model, adapter, facts=facts, grown=bool(growth.added), base=base, seed=seed)
    for config in (model.config, model.config.get_text_config()):
        config.use_cache = False
    model.train()
    applied = patches.apply(model, patches.wanted(facts["patches"], optimize, adapter=adapter is not None))
    layers, line = _checkpointed(model, checkpointing, settled, offload=offload)
    lines = [LedgerLine(what="precision", applied=precision.name != "fp32", why=precision.why), line]
    trainable = sum(one.numel() for one in model.parameters() if one.requires_grad)
    return Prepared(
        model=model,
        tokenizer=tokenizer,
        applied=applied,
        lines=(*lines, *_of_quantised(quantize), *patches.unwanted(facts["patches"], optimize)),
        checkpointed=layers,
        precision=precision,
        quantize=quantize,
        adapter=adapter,
        base=base,
        grown=growth.resized,
        config=plain,
        parameters=sum(one.numel() for one in model.parameters()) + flops.packed_parameters(model),
        trainable=trainable,
        flops_per_token=flops.per_token(facts, trained=None if adapter is None else trainable),
        forecast=settled.forecast,
        demand=settled.demand,
        choice=settled.choice,
        packed=packed,
        packing=packing,
        packing_why=packing_why,
    )


def probe(prepared: Prepared, batch: Mapping[str, Any]) -> Prepared:
    """Hold every patch against fp64 on a few short documents of ``batch``, and packed documents to themselves.

    ``batch`` is the same in every process of a team, all of which call this. A patch that is preferred and not right
    is taken out; where documents of a packed row see each other and packing is preferred, the result is not ``packed``.
    Raises JobError: Infeasible for what is required and not right, NaN where the loss is no number or no gradient
    comes back.
    """
    model = prepared.model
    few = probing.small(batch, model.device)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), autocast(prepared):
        try:
            found = kernels.probe(model, prepared.applied, _fair(prepared, few))
        except PatchError as error:
            raise _unfit(error) from error
        why = _contamination(prepared, few) if prepared.packed else None
    _agree(prepared)
    losses = f"loss {found.loss:.4f} without patches, {found.patched_loss:.4f} with them"
    said = f"on {few['input_ids'].numel()} tokens: {losses}, norm of the gradient {found.gradient_norm:.3g}"
    lines = (*prepared.lines, LedgerLine(what="probe", applied=True, why=said))
    if not prepared.packed:
        return replace(prepared, lines=lines)
    seen = ranks.of_all(why)
    if why := next((one for one in seen if one is not None), None):
        return replace(prepared, lines=lines, packed=False, packing_why=f"documents are padded instead: {why}")
    documents = len(few["cu_seq_lens_q"]) - 1
    right = f"the gradient of each of {documents} documents by the tokens of the others is exactly 0"
    return replace(prepared, lines=lines, packing_why=right if documents > 1 else prepared.packing_why)


def _fair(prepared: Prepared, few: Mapping[str, Any]) -> Mapping[str, Any]:
    """What patches are held against the plain model on: one document, where the plain model mixes those of a row.

    gpt-oss does in transformers 5.19, which makes its masks without positions; with our attention it does not.
    """
    if not prepared.packed:
        return few
    try:
        with prepared.applied.suspended():
            kernels.contamination(prepared.model, few)
    except PatchError:
        return probing.first(few)
    return few


def autocast(prepared: Prepared) -> torch.autocast:
    """What products of a 16-bit run are computed in."""
    dtype = prepared.precision.dtype
    return torch.autocast(prepared.model.device.type, dtype=dtype, enabled=dtype != torch.float32)


def _packing(config: Any, wanted: Wanted) -> tuple[bool, str]:
    """Whether documents may share a row, and why."""
    if wanted == "off":
        return False, "off"
    refusal = form.refusal(config)
    if refusal is None:
        return True, "as wanted"
    if wanted == "required":
        raise JobError(
            f"packing is required and cannot be right: {refusal}; set packing: preferred", failure="Infeasible"
        )
    return False, f"documents are padded instead: {refusal}"


def _checkpointed(
    model: Any, wanted: Checkpointing, settled: Settled, *, offload: bool
) -> tuple[Checkpointed | None, LedgerLine]:
    word: Wanted = "preferred" if wanted == "auto" else wanted
    if not settled.checkpointed:
        return None, LedgerLine(what="checkpointing", wanted=word, applied=False, why=settled.why)
    try:
        layers = checkpointed(model, offload=offload)
    except ValueError as error:
        if wanted == "required":
            raise JobError(f"optimize.checkpointing is required: {error}", failure="Infeasible") from error
        return None, LedgerLine(what="checkpointing", wanted=word, applied=False, why=str(error))
    why = f"{settled.why}; {layers.why}" if offload else settled.why
    return layers, LedgerLine(
        what="checkpointing", where=f"{len(layers.layers)} layers", wanted=word, applied=True, why=why
    )


def _of_quantised(quantize: str) -> Iterator[LedgerLine]:
    if quantize != "none":
        why = "linear layers were rounded while they were loaded; heads, embeddings, routers and experts were not"
        yield LedgerLine(what="quantize", where=quantize, wanted="required", applied=True, why=why)


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
    return f"{tokens}; embeddings have {growth.rows[1]} rows, the base had {growth.rows[0]}"


def _unfit(error: PatchError) -> JobError:
    if str(error).startswith(NOTHING):
        return JobError(f"{str(error).rstrip('.')}: see precision, and what is learned of the data", failure="NaN")
    return patches.refused(error)


def _contamination(prepared: Prepared, few: Mapping[str, Any]) -> str | None:
    """That documents see each other, in words. Raises JobError where packing is required."""
    try:
        kernels.contamination(prepared.model, few)
    except PatchError as error:
        if prepared.packing == "required":
            raise patches.refused(error) from error
        return str(error).rstrip(".")
    return None


def _agree(prepared: Prepared) -> None:
    """What one process of a team took out is in none of them."""
    kept = set.intersection(*ranks.of_all(set(prepared.applied.found)))
    for name in set(prepared.applied.found) - kept:
        prepared.applied.undo(name)
        for line in prepared.applied.ledger.of(name):
            if line.applied:
                why = "taken out by the probe of another process"
                prepared.applied.ledger.change(line, applied=False, why=why)
