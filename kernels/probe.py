"""Before training, in seconds: is every patch right on these weights, on this device, and what does it save.

One step of the model without its patches gives each patch's first module its real input and the gradient that comes
back. There the module runs with the patch and without: its error against the same in fp64 must be under twice what
the usual way makes, plus one rounding (see `tests/kernels/criterion.py`). `contamination` is for packed rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from runner.kernels.adapters import causal
from runner.kernels.attention import ledger
from runner.kernels.ledger import Line
from runner.kernels.patching import Applied, PatchError
from runner.kernels.trial import Ran, error, exact, measured

ROWS = 512  # of hidden states that the loss is compared on: its truth holds their logits in fp64
Batch = Mapping[str, Any]  # what the model is called with


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What the probe saw of the whole model."""

    loss: float  # without patches
    patched_loss: float
    gradient_norm: float  # of all trainable parameters, without patches


@dataclass(kw_only=True)
class Seen:
    """What a module was given, and what came back."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    gradient: Tensor | None = None


def probe(model: nn.Module, applied: Applied, batch: Batch) -> Probed:
    """Try every line of `applied` that is in `model` on `batch` (with labels), and write error and saving into it.

    The model should be in training mode; its gradients are cleared. Raises PatchError, with all patches out, where one
    that is required is not right; one that is preferred is taken out and its line says so. Raises PatchError where
    nothing would be learned: a loss that is no number, or gradients of 0.
    """
    lines = [line for line in applied.ledger.lines if line.applied and line.what in applied.found]
    modules = {line.what: _place(model, line) for line in lines}
    with applied.suspended():
        seen, loss, norm = _step(model, modules, batch)
        tried = [(line, _tried(modules[line.what], line, applied, seen, model, batch)) for line in lines]
    for line, result in tried:
        if isinstance(result, str):
            _take_out(applied, line, result)
        else:
            _judge(applied, line, *result)
    with torch.no_grad():
        patched_loss = float(model(**batch).loss)
    _tell_attention(model, applied)
    return Probed(loss=loss, patched_loss=patched_loss, gradient_norm=norm)


def contamination(model: Any, batch: Batch, *, documents: int = 3) -> None:
    """Hold packed rows to their documents: the gradient of one's loss by another's embeddings must be exactly 0.

    `batch` has input_ids and labels [1, T], and position_ids [1, T] that begin at 0 in every document; and
    use_cache=False, without which transformers does not look for documents. Tries so many of them, the first and the
    last among them. Raises PatchError naming the documents, and where one's own gradient
    is 0.
    """
    starts = (batch["position_ids"][0] == 0).nonzero()[:, 0].tolist()
    ends = [*starts[1:], batch["position_ids"].shape[1]]
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
        (gradient,) = torch.autograd.grad(model(inputs_embeds=leaf, labels=labels, **others).loss, leaf)
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
    chosen = [f"{entry.backend} for {entry.call}: {entry.why}" for entry in ledger(model)]
    for line in applied.ledger.of("attention"):
        if line.applied and chosen:
            applied.ledger.change(line, why="; ".join(chosen))


def _place(model: nn.Module, line: Line) -> nn.Module:
    module = model.get_submodule(line.places[0])
    return causal.heads(module)[-1] if line.what == "linear_cross_entropy" else module


def _step(model: nn.Module, modules: Mapping[str, nn.Module], batch: Batch) -> tuple[dict[str, Seen], float, float]:
    model.zero_grad()
    with _watched(modules) as seen:
        loss = model(**batch).loss
        loss.backward()
    gradients = [x.grad.float().norm() for x in model.parameters() if x.grad is not None]
    norm = float(torch.stack(gradients).norm()) if gradients else 0.0
    model.zero_grad()
    if not (loss.isfinite() and 0 < norm < float("inf")):
        raise PatchError(f"Nothing would be learned: the loss is {loss.item()}, the norm of its gradients {norm}.")
    return seen, loss.item(), norm


@contextmanager
def _watched(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Seen]]:
    """What each module is given while the block runs, and the gradient of what it gives."""
    seen = {what: Seen() for what in modules}

    def watch(what: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            # a cache would grow with every run
            seen[what].args, seen[what].kwargs = args, {k: x for k, x in kwargs.items() if k != "past_key_values"}
            first = output[0] if isinstance(output, tuple) else output
            if first.requires_grad:
                first.register_hook(lambda gradient: setattr(seen[what], "gradient", gradient.detach().clone()))

        return hook

    handles = [module.register_forward_hook(watch(what), with_kwargs=True) for what, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _tried(module: nn.Module, line: Line, *rest: Any) -> tuple[Ran, Ran, tuple[float, float]] | str:
    """What `_try` found, or in words what it raised: libraries refuse shapes with exceptions of every kind."""
    try:
        return _try(module, line, *rest)
    except torch.AcceleratorError:
        raise  # the device is lost to this process
    except Exception as error:
        return f"it cannot be tried on {line.places[0]!r}: {type(error).__name__}: {error}"[:300]


def _try(
    module: nn.Module, line: Line, applied: Applied, seen: Mapping[str, Seen], model: nn.Module, batch: Batch
) -> tuple[Ran, Ran, tuple[float, float]]:
    """The usual way and the patched one, each alone, and their errors against fp64."""
    given = seen[line.what]
    if line.what == "linear_cross_entropy":
        usual, ours, truth = _losses(module, line, given, applied, model, batch)
    else:
        truth = _run(exact(module), _cast(given, torch.float64)).values
        usual = _run(module, given)
        with applied.only(line.what):
            if applied.found[line.what].begin is not None:  # attention: what stands for its mask comes with the patch
                given = _own_kwargs(model, module, given, batch)
            ours = _run(module, given)
    pairs = [(error(x, true), error(y, true)) for x, y, true in zip(usual.values, ours.values, truth, strict=True)]
    worst = max(range(len(pairs)), key=lambda i: pairs[i][1] - 2 * pairs[i][0])
    return usual, ours, pairs[worst]


def _own_kwargs(model: nn.Module, module: nn.Module, given: Seen, batch: Batch) -> Seen:
    with _watched({"": module}) as seen, torch.no_grad():
        model(**batch)
    kwargs = {key: given.kwargs.get(key) if isinstance(x, Tensor) else x for key, x in seen[""].kwargs.items()}
    return Seen(args=given.args, kwargs=kwargs, gradient=given.gradient)


def _losses(
    head: Any, line: Line, given: Seen, applied: Applied, model: nn.Module, batch: Batch
) -> tuple[Ran, Ran, list[Tensor]]:
    """The head and its loss by themselves, on rows that have a target as far as there are any."""
    outer: Any = model.get_submodule(line.places[0])
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


def _run(module: nn.Module, given: Seen) -> Ran:
    """The module's first output, and its gradients by its first input and by what it trains; without dropout."""
    trained = [x for x in module.parameters() if x.requires_grad]
    training = [part for part in module.modules() if part.training]

    def once() -> list[Tensor]:
        leaf, args, kwargs = _leaf(given)
        output = module(*args, **kwargs)
        first = output[0] if isinstance(output, tuple) else output
        gradient = torch.ones_like(first) if given.gradient is None else given.gradient.to(first.dtype)
        found = torch.autograd.grad(first, [leaf, *trained], gradient, allow_unused=True)
        return [
            first.detach(),
            *(torch.zeros_like(x) if g is None else g for g, x in zip(found, [leaf, *trained], strict=True)),
        ]

    module.eval()
    try:
        return measured(once, next(module.parameters()).device)
    finally:
        for part in training:
            part.training = True


def _leaf(given: Seen) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """The first floating input as a leaf, and all inputs with it in its place."""
    if given.args:
        leaf = given.args[0].detach().clone().requires_grad_()
        return leaf, (leaf, *given.args[1:]), given.kwargs
    name = next(key for key, x in given.kwargs.items() if isinstance(x, Tensor) and x.is_floating_point())
    leaf = given.kwargs[name].detach().clone().requires_grad_()
    return leaf, (), given.kwargs | {name: leaf}


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """The same with floating tensors in `dtype`, inside of tuples and dicts too."""
    if isinstance(value, Seen):
        fields = (_cast(x, dtype) for x in (value.args, value.kwargs, value.gradient))
        return Seen(**dict(zip(("args", "kwargs", "gradient"), fields, strict=True)))
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(_cast(x, dtype) for x in value)
    if isinstance(value, dict):
        return {key: _cast(x, dtype) for key, x in value.items()}
    return value


def _judge(applied: Applied, line: Line, usual: Ran, ours: Ran, errors: tuple[float, float]) -> None:
    theirs, mine = errors
    limit = 2 * theirs + max(torch.finfo(ours.values[0].dtype).eps / 2, 1e-6)
    if mine <= limit:
        applied.ledger.change(line, parity_error=mine, saving=_saving(usual, ours, len(line.places)))
        return
    why = f"its error on {line.places[0]!r} is {mine:.1e}, where torch's own is {theirs:.1e} and {limit:.1e} the limit"
    _take_out(applied, line, why, mine)


def _take_out(applied: Applied, line: Line, why: str, mine: float | None = None) -> None:
    if line.wanted == "required":
        applied.undo()
        raise PatchError(f"{line.what} is required and not right on this device: {why}. Set it to preferred or off.")
    applied.undo(line.what)
    applied.ledger.change(line, applied=False, why=f"taken out by the probe: {why}", parity_error=mine)


def _saving(usual: Ran, ours: Ran, places: int) -> str:
    """In words, for all places: what a forward and backward of one saves, times their number."""
    milliseconds = 1000 * places * (usual.seconds - ours.seconds)
    text = f"{milliseconds:+.1f} ms of {1000 * places * usual.seconds:.1f} ms a step"
    if usual.bytes is None or ours.bytes is None:
        return text
    return f"{text}, {(usual.bytes - ours.bytes) / 2**20:+.1f} MiB at a time"
