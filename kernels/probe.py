"""Before training, in seconds: is every patch right on these weights, on this device, and what does it save.

One step of the model without its patches gives each patch's first module of each kind (paths that differ in numbers
alone) its real input and the gradient that comes back. There the module runs with the patch and without: its error
against the same in fp64 must be under twice what the usual way makes, plus one rounding (see
`tests/kernels/criterion.py`). `contamination` is for packed rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from runner.kernels.attention import choices
from runner.kernels.forwards import causal
from runner.kernels.ledger import Line
from runner.kernels.patching import Applied, PatchError
from runner.kernels.trial import Ran, Seen, cast, error, exact, measured, run

ROWS = 512  # of hidden states that the loss is compared on: its truth holds their logits in fp64
Batch = Mapping[str, Any]  # what the model is called with


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What the probe saw of the whole model."""

    loss: float  # without patches
    patched_loss: float
    gradient_norm: float  # of all trainable parameters, without patches


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A place of a patch, computed the usual way and with the patch: pairs are in that order."""

    path: str
    alike: int  # places of its kind
    errors: tuple[float, float]  # against fp64, where ours is worst
    limit: float  # for ours
    seconds: tuple[float, float]
    bytes: tuple[int, int] | None  # on GPUs


Key = tuple[str, str]  # a patch, and the path of one of its places


def probe(model: nn.Module, applied: Applied, batch: Batch) -> Probed:
    """Try every line of `applied` that is in `model` on `batch` (with labels), and write error and saving into it.

    The model should be in training mode; its gradients are cleared. Raises PatchError, with all patches out, where one
    that is required is not right; one that is preferred is taken out and its line says so. Raises PatchError where
    there is no loss, and where nothing would be learned: a loss that is no number, or gradients of 0.
    """
    lines = [line for line in applied.ledger.lines if line.applied and line.what in applied.found]
    modules = {(line.what, one[0]): _place(model, line, one[0]) for line in lines for one in line.kinds.values()}
    with applied.suspended():
        seen, loss, norm = _step(model, modules, batch)
        tried = [(line, _tried(line, modules, applied, seen, model, batch)) for line in lines]
    for line, result in tried:
        if isinstance(result, str):
            _take_out(applied, line, result)
        else:
            _judge(applied, line, result)
    with torch.no_grad():
        patched_loss = float(_loss(model, batch))
    _tell_attention(model, applied)
    return Probed(loss=loss, patched_loss=patched_loss, gradient_norm=norm)


def contamination(model: Any, batch: Batch, *, documents: int = 3) -> None:
    """Hold packed rows to their documents: the gradient of one's loss by another's embeddings must be exactly 0.

    `batch` has input_ids and labels [1, T], and position_ids [1, T] or [axes, 1, T] that begin at 0 in every document;
    and use_cache=False, without which transformers does not look for documents. Tries so many of them, the first and
    the last among them. Raises PatchError naming the documents, and where one's own gradient is 0.
    """
    length = batch["input_ids"].shape[1]
    starts = (batch["position_ids"].reshape(-1, length)[0] == 0).nonzero()[:, 0].tolist()
    ends = [*starts[1:], length]
    count = min(documents, len(starts))
    chosen = sorted({round(i * (len(starts) - 1) / max(count - 1, 1)) for i in range(count)})
    embedded = model.get_input_embeddings()(batch["input_ids"]).detach()
    for document in chosen:
        here = slice(starts[document] + 1, ends[document])  # a document's first token is nobody's to predict
        labels = torch.full_like(batch["labels"], -100)
        labels[:, here] = batch["labels"][:, here]
        if bool((labels == -100).all()):
            continue
        leaf = embedded.clone().requires_grad_()
        others = {key: x for key, x in batch.items() if key not in {"input_ids", "labels"}}
        (gradient,) = torch.autograd.grad(_loss(model, {"inputs_embeds": leaf, "labels": labels, **others}), leaf)
        sizes = [gradient[0, start:end].abs().sum().item() for start, end in zip(starts, ends, strict=True)]
        if not sizes[document] > 0:
            raise PatchError(f"Document {document} of a packed row has no gradient by its own tokens.")
        touched = [other for other, size in enumerate(sizes) if other != document and size != 0]
        if touched:
            raise PatchError(
                f"Documents of a packed row see each other: the loss of {document} depends on the tokens of {touched}. "
                "Turn packing off, or choose an attention that keeps them apart."
            )


def _tell_attention(model: nn.Module, applied: Applied) -> None:
    """What computes attention is chosen call by call: the line says what was chosen for this batch."""
    chosen = [f"{entry.backend} for {entry.call}: {entry.why}" for entry in choices(model)]
    for line in applied.ledger.of("attention"):
        if line.applied and chosen:
            applied.ledger.change(line, why="; ".join(chosen))


def _place(model: nn.Module, line: Line, path: str) -> nn.Module:
    module = model.get_submodule(path)
    return causal.heads(module)[-1] if line.what == "linear_cross_entropy" else module


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    loss = getattr(model(**batch), "loss", None)
    if isinstance(loss, Tensor):
        return loss
    lacks = "the batch has no labels" if batch.get("labels") is None else "take one with a head (AutoModelForCausalLM)"
    raise PatchError(f"{type(model).__name__} gives no loss, which the probe needs: {lacks}.")


def _step(model: nn.Module, modules: Mapping[Key, nn.Module], batch: Batch) -> tuple[dict[Key, Seen], float, float]:
    model.zero_grad()
    with _watched(modules) as seen:
        loss = _loss(model, batch)
        loss.backward()
    gradients = [x.grad.float().norm() for x in model.parameters() if x.grad is not None]
    norm = float(torch.stack(gradients).norm()) if gradients else 0.0
    model.zero_grad()
    if not (loss.isfinite() and 0 < norm < float("inf")):
        raise PatchError(f"Nothing would be learned: the loss is {loss.item()}, the norm of its gradients {norm}.")
    return seen, loss.item(), norm


@contextmanager
def _watched(modules: Mapping[Key, nn.Module]) -> Iterator[dict[Key, Seen]]:
    """What each module is given while the block runs, and the gradient of what it gives."""
    seen = {key: Seen() for key in modules}

    def watch(given: Seen) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            # a cache would grow with every run
            given.args, given.kwargs = args, {k: x for k, x in kwargs.items() if k != "past_key_values"}
            given.reached = True
            first = output[0] if isinstance(output, tuple) else output
            if first.requires_grad:
                first.register_hook(lambda gradient: setattr(given, "gradient", gradient.detach().clone()))

        return hook

    handles = [module.register_forward_hook(watch(seen[key]), with_kwargs=True) for key, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _tried(
    line: Line,
    modules: Mapping[Key, nn.Module],
    applied: Applied,
    seen: Mapping[Key, Seen],
    model: nn.Module,
    batch: Batch,
) -> list[Tried] | str:
    """What was found at the first place of each kind, or in words why nothing was."""
    found = []
    for paths in line.kinds.values():
        given = seen[line.what, paths[0]]
        if not given.reached:
            continue
        try:
            pair = _try(modules[line.what, paths[0]], line, paths[0], applied, given, model, batch)
        except torch.AcceleratorError:
            raise  # the device is lost to this process
        except Exception as error:  # libraries refuse shapes with exceptions of every kind
            return f"it cannot be tried on {paths[0]!r}: {type(error).__name__}: {error}"[:300]
        found.append(_compared(*pair, path=paths[0], alike=len(paths)))
    return found or f"the batch reaches none of its places, such as {line.places[0]!r}"


def _try(
    module: nn.Module, line: Line, path: str, applied: Applied, given: Seen, model: nn.Module, batch: Batch
) -> tuple[Ran, Ran, list[Tensor]]:
    """The usual way and the patched one, each alone, and the truth in fp64."""
    if line.what == "linear_cross_entropy":
        return _losses(module, line, path, given, applied, model, batch)
    truth = run(exact(module), cast(given, torch.float64)).values
    usual = run(module, given)
    with applied.only(line.what):
        if applied.found[line.what].begin is not None:  # attention: what stands for its mask comes with the patch
            given = _own_kwargs(model, module, given, batch)
        return usual, run(module, given), truth


def _compared(usual: Ran, ours: Ran, truth: list[Tensor], *, path: str, alike: int) -> Tried:
    pairs = [(error(x, true), error(y, true)) for x, y, true in zip(usual.values, ours.values, truth, strict=True)]
    theirs, mine = max(pairs, key=lambda pair: pair[1] - 2 * pair[0])
    return Tried(
        path=path,
        alike=alike,
        errors=(theirs, mine),
        limit=2 * theirs + max(torch.finfo(ours.values[0].dtype).eps / 2, 1e-6),
        seconds=(usual.seconds, ours.seconds),
        bytes=None if usual.bytes is None or ours.bytes is None else (usual.bytes, ours.bytes),
    )


def _own_kwargs(model: nn.Module, module: nn.Module, given: Seen, batch: Batch) -> Seen:
    with _watched({("", ""): module}) as seen, torch.no_grad():
        model(**batch)
    kwargs = {key: given.kwargs.get(key) if isinstance(x, Tensor) else x for key, x in seen["", ""].kwargs.items()}
    return Seen(args=given.args, kwargs=kwargs, gradient=given.gradient)


def _losses(
    head: Any, line: Line, path: str, given: Seen, applied: Applied, model: nn.Module, batch: Batch
) -> tuple[Ran, Ran, list[Tensor]]:
    """The head and its loss by themselves, on rows that have a target as far as there are any."""
    outer: Any = model.get_submodule(path)
    targets = causal.shifted(batch["labels"], {}).reshape(-1)
    hidden = given.args[0].detach().reshape(len(targets), -1)
    rows = (targets != -100).nonzero()[:ROWS, 0]
    targets, hidden = targets[rows], hidden[rows]
    family = applied.found[line.what].family
    assert family is not None
    scales = causal.scales_of(outer, family)

    def usual(x: Tensor, weight: Tensor) -> Tensor:
        return causal.plain_loss(nn.functional.linear(x, weight), targets, scales)

    def ours(x: Tensor, _weight: Tensor) -> Tensor:
        return causal.patched_loss(head, x, targets, scales)

    truth = _timed(usual, hidden.double(), head.weight.detach().double(), head.weight.requires_grad).values
    one = _timed(usual, hidden, head.weight, head.weight.requires_grad)
    with applied.only(line.what):
        return one, _timed(ours, hidden, head.weight, head.weight.requires_grad), truth


def _timed(loss: Callable[..., Tensor], hidden: Tensor, weight: Tensor, trained: bool) -> Ran:
    weight = weight if weight.requires_grad else weight.requires_grad_(trained)

    def once() -> list[Tensor]:
        x = hidden.clone().requires_grad_()
        value = loss(x, weight)
        return [value.detach(), *torch.autograd.grad(value, [x, weight] if trained else [x])]

    return measured(once, hidden.device)


def _judge(applied: Applied, line: Line, tried: list[Tried]) -> None:
    for one in tried:
        theirs, mine = one.errors
        if not mine <= one.limit:
            limits = f"where torch's own is {theirs:.1e} and {one.limit:.1e} the limit"
            _take_out(applied, line, f"its error on {one.path!r} is {mine:.1e}, {limits}", mine)
            return
    applied.ledger.change(line, parity_error=max(one.errors[1] for one in tried), saving=_saving(tried))


def _take_out(applied: Applied, line: Line, why: str, mine: float | None = None) -> None:
    if line.wanted == "required":
        applied.undo()
        raise PatchError(f"{line.what} is required and not right on this device: {why}. Set it to preferred or off.")
    applied.undo(line.what)
    applied.ledger.change(line, applied=False, why=f"taken out by the probe: {why}", parity_error=mine)


def _saving(tried: list[Tried]) -> str:
    """In words: what a forward and backward of one place of each kind saves, times the places of its kind."""
    usual, ours = (1000 * sum(one.alike * one.seconds[way] for one in tried) for way in (0, 1))
    text = f"{usual - ours:+.1f} ms of {usual:.1f} ms a step"
    peaks = [one.bytes for one in tried if one.bytes is not None]
    if not peaks:
        return text
    saved = max(peak for peak, _ in peaks) - max(peak for _, peak in peaks)
    return f"{text}, {saved / 2**20:+.1f} MiB at a time"
