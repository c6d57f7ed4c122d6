"""A model made ready to be trained: loaded, grown, quantised, with its adapter, patched, checkpointed and probed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
from runner.llm.memory import Settled
from runner.llm.model import adapters, flops, load, patches, probing, vocabulary
from runner.llm.model.prepared import Prepared
from runner.llm.model.wish import Wish
from runner.llm.packing import form
from runner.precision import Precision
from runner.registry.demand import Checkpointing
from runner.registry.parameters import of_images
from runner.schema.errors import JobError

NOTHING = "Nothing would be learned"  # how the probe's complaint of a loss or gradient begins


def prepare(folder: Path, *, say: Callable[[str], None] = lambda _: None, **wishes: Any) -> Prepared:
    """The model in ``folder`` after all that comes before the first step but the probe; ``wishes`` fill a ``Wish``.

    Raises JobError: ModelInvalid for weights and names that do not fit, Infeasible for what is required and cannot be
    had or does not fit into memory, before weights are read.
    """
    wish = Wish(**wishes)
    if (positions := wish.facts["max_positions"]) < wish.seq_len:
        what = f"the model has {positions:,} positions, fewer than the {wish.seq_len:,} tokens of batch.seq_len"
        say(f"{what}: what becomes of a document that is longer packing.long decides")
    settled = memory.settle(wish.shape, memory=memory.available(wish.device, limit=wish.memory_bytes))
    model, growth = _loaded(folder, wish)
    if growth.added or growth.resized:
        say(_of_growth(growth))
    plain = _plain_config(model, wish.precision)
    packed, packing_why = _packing(plain, wish.packing)
    model = _with_trained(model, wish)
    for config in (model.config, model.config.get_text_config()):
        config.use_cache = False
    model.train()
    adapter, listed = wish.adapter, wish.facts["patches"]
    applied = patches.apply(model, patches.wanted(listed, wish.optimize, adapter=adapter is not None))
    layers, line = _checkpointed(model, wish.checkpointing, settled, offload=wish.offload)
    trainable = sum(one.numel() for one in model.parameters() if one.requires_grad)
    return Prepared(
        model=model,
        tokenizer=wish.tokenizer,
        applied=applied,
        lines=(_of_precision(wish), line, *_of_quantised(wish.quantize), *patches.unwanted(listed, wish.optimize)),
        checkpointed=layers,
        precision=wish.precision,
        quantize=wish.quantize,
        adapter=adapter,
        base=wish.base,
        grown=growth.resized,
        facts=wish.facts,
        config=plain,
        parameters=sum(one.numel() for one in model.parameters()) + flops.packed_parameters(model),
        trainable=trainable,
        flops=flops.of(model, wish.facts, adapted=adapter is not None),
        forecast=settled.forecast,
        choice=settled.choice,
        packed=packed,
        packing=wish.packing,
        packing_why=packing_why,
    )


def probe(prepared: Prepared, batch: Mapping[str, Any], *, patches: bool = True) -> Prepared:
    """Hold every patch against fp64 on a few short documents of ``batch``, and packed documents to themselves.

    Without ``patches`` the documents alone. ``batch`` is the same in every process of a team, all of which call this. A
    patch that is preferred and not right is taken out; where documents of a packed row see each other and packing is
    preferred, the result is not ``packed``. Raises JobError: Infeasible for what is required and not right, NaN where
    the loss is no number or no gradient comes back.
    """
    device = prepared.model.device
    few = probing.small(batch, device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), autocast(prepared):
        if patches:
            prepared = _of_patches(prepared, few)
        return _apart(prepared, few) if prepared.packed else prepared


def _of_patches(prepared: Prepared, few: Mapping[str, Any]) -> Prepared:
    try:
        found = kernels.probe(prepared.model, prepared.applied, _fair(prepared, few))
    except PatchError as error:
        raise _unfit(error) from error
    _agree(prepared)
    losses = f"loss {found.loss:.4f} without patches, {found.patched_loss:.4f} with them"
    said = f"on {few['input_ids'].numel()} tokens: {losses}, norm of the gradient {found.gradient_norm:.3g}"
    return replace(prepared, lines=(*prepared.lines, LedgerLine(what="probe", applied=True, why=said)))


def _apart(prepared: Prepared, few: Mapping[str, Any]) -> Prepared:
    """Documents of a packed row, which must not see each other in any process."""
    seen = ranks.of_all(_contamination(prepared, few))
    if why := next((one for one in seen if one is not None), None):
        return replace(prepared, packed=False, packing_why=f"documents are padded instead: {why}")
    documents = len(few["cu_seq_lens_q"]) - 1
    right = f"the gradient of each of {documents} documents by the tokens of the others is exactly 0"
    return replace(prepared, packing_why=right if documents > 1 else prepared.packing_why)


def _fair(prepared: Prepared, few: Mapping[str, Any]) -> Mapping[str, Any]:
    """What patches are held against the plain model on: one document, where the plain model mixes those of a row.

    gpt-oss does in transformers 5.19, which makes its masks without positions; with our attention it does not.
    """
    if not prepared.packed:
        return few
    try:
        with prepared.applied.suspended():
            kernels.contamination(prepared.model, few, documents=probing.PIECES)
    except PatchError:
        return probing.first(few)
    return few


def autocast(prepared: Prepared) -> torch.autocast:
    """What products of a 16-bit run are computed in."""
    dtype = prepared.precision.dtype
    return torch.autocast(prepared.model.device.type, dtype=dtype, enabled=dtype != torch.float32)


def _loaded(folder: Path, wish: Wish) -> tuple[Any, vocabulary.Growth]:
    model = load.load(
        folder,
        family=wish.family,
        dtype=wish.dtype,
        quantize=wish.quantize,
        quantised=wish.facts["quantised"],
        device=wish.device,
        trust_remote_code=wish.trust_remote_code,
    )
    return model, vocabulary.grow(model, wish.tokenizer, added=wish.added, multiple=wish.multiple)


def _with_trained(model: Any, wish: Wish) -> Any:
    """What is not trained is frozen, beside an adapter all of the base but what has grown."""
    if wish.adapter is None:
        _freeze_images(model, wish.precision.dtype)
        return model
    return adapters.add(model, wish.adapter, facts=wish.facts, grown=bool(wish.added), base=wish.base, seed=wish.seed)


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


def _of_precision(wish: Wish) -> LedgerLine:
    return LedgerLine(what="precision", applied=wish.precision.name != "fp32", why=wish.precision.why)


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
        kernels.contamination(prepared.model, few, documents=probing.PIECES)
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
