"""The loss of a language model without its logits: the head's product and the cross-entropy as one operation.

While the model trains and is given labels, its forward runs as ever, but the head turns what it gets into the loss at
once and hands on logits of no entries, so that every scale and cap after it costs nothing. The result has the loss and
`logits=None`. Without labels, or in eval mode, everything is as before. Only rows whose label counts are computed
where that saves work (CPUs: finding them would make a GPU wait).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.loss.loss_utils import ForCausalLMLoss

from runner.kernels import cpu_loss
from runner.kernels.launch import wide
from runner.kernels.ops.linear_cross_entropy import linear_cross_entropy
from runner.kernels.places import Edit, Family, Function, Request, UnfitError, forward, must_be_dense


@dataclass(kw_only=True)
class Labels:
    """What the heads of one model are to make the loss of, during one forward."""

    heads: tuple[nn.Module, ...]
    targets: Tensor
    ignore_index: int
    items: Any  # number of targets in the whole batch that the sum is divided by, or None for the mean
    softcap: float | None
    divisor: float
    loss: Tensor | None = None


# Of the forward that runs in this thread: two threads may train one model, whose head they share.
NOW: ContextVar[Labels | None] = ContextVar("labels", default=None)


def loss_of_hidden(module: Any, request: Request) -> list[Edit]:
    """A language model with its head."""
    if not type(module).forward.__module__.startswith("transformers."):
        raise UnfitError(f"its forward is {type(module).forward.__module__}'s own: it takes one of transformers")
    _must_be_usual(module)
    if getattr(module, "_tp_size", None) not in {None, 1}:
        raise UnfitError("its head is split over several devices (tensor parallel)")
    found = heads(module)
    _must_be_plain(module.lm_head, found)
    family, with_triton = request.family, request.with_triton

    def make(module: nn.Module) -> Function:
        signature = inspect.signature(type(module).forward)

        def with_loss(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return _forward(self, signature.bind(self, *args, **kwargs), family)

        return with_loss

    def make_head(_head: nn.Module) -> Function:
        def head(self: nn.Linear, hidden: Tensor) -> Tensor:
            return _head_forward(self, hidden, with_triton)

        return head

    return [forward(module, request, make), *(forward(head, request, make_head) for head in found)]


def _must_be_usual(module: Any) -> None:
    if module.loss_function is not ForCausalLMLoss:
        name = getattr(module.loss_function, "__name__", type(module.loss_function).__name__)
        raise UnfitError(f"its loss_function is {name}, not transformers' own for causal models")


def heads(module: nn.Module) -> list[Any]:
    """The linear layers that may be the head: with PEFT's modules_to_save there are several, and it picks one."""
    outer = getattr(module, "lm_head", None)
    if not isinstance(outer, nn.Module):
        raise UnfitError("it has no lm_head")
    saved = getattr(outer, "modules_to_save", None)
    return [outer.original_module, *saved.values()] if isinstance(saved, nn.ModuleDict) else [outer]


def _must_be_plain(outer: Any, inner: list[Any]) -> None:
    for head in {outer, *inner}:
        if head._forward_hooks or head._forward_pre_hooks or head._backward_hooks or head._backward_pre_hooks:
            raise UnfitError("its lm_head has hooks, which would see no logits: remove them")
    for head in inner:
        if type(head) is not nn.Linear:
            raise UnfitError(
                f"its lm_head is a {type(head).__name__}: it takes a plain Linear, without an adapter or packing"
            )
        must_be_dense(head, "weight")
        if head.bias is not None:
            raise UnfitError("its lm_head has a bias")


def plain_loss(logits_NV: Tensor, targets_N: Tensor, scales: Mapping[str, Any]) -> Tensor:
    """The loss as transformers has it, of logits as the head gives them; in fp32 at least."""
    logits_NV = logits_NV / scales["divisor"]
    if scales["softcap"] is not None:
        logits_NV = scales["softcap"] * torch.tanh(logits_NV / scales["softcap"])
    return nn.functional.cross_entropy(wide(logits_NV), targets_N)


def patched_loss(head: Any, hidden_NH: Tensor, targets_N: Tensor, scales: Mapping[str, Any]) -> Tensor:
    """The loss that a patched head makes of hidden states."""
    wanted = Labels(heads=(head,), targets=targets_N, ignore_index=-100, items=None, **scales)
    before = NOW.set(wanted)
    try:
        head(hidden_NH)
    finally:
        NOW.reset(before)
    assert wanted.loss is not None, "the head is not patched"
    return wanted.loss


def scales_of(module: Any, family: Family) -> dict[str, Any]:
    """What is done to logits: the cap on them, and the number that they are divided by."""
    return {
        "softcap": getattr(module.config, family.softcap, None) if family.softcap else None,
        "divisor": getattr(module.config, family.divisor, 1.0) if family.divisor else 1.0,
    }


def _forward(module: Any, bound: inspect.BoundArguments, family: Family) -> Any:
    given = bound.arguments
    labels, more = given.get("labels"), given.get("kwargs", {})
    own = type(module).forward
    if labels is None or not module.training:
        return own(*bound.args, **bound.kwargs)
    _must_be_usual_now(module)
    wanted = Labels(
        heads=tuple(heads(module)),
        targets=shifted(labels, more),
        ignore_index=more.get("ignore_index", -100),
        items=more.get("num_items_in_batch"),
        **scales_of(module, family),
    )
    given["labels"] = None
    tuple_wanted = more.pop("return_dict", module.config.return_dict) is False
    before = NOW.set(wanted)
    try:
        out = own(*bound.args, **bound.kwargs, return_dict=True)
    finally:
        NOW.reset(before)
    return _result(module, out, wanted, tuple_wanted)


def _must_be_usual_now(module: Any) -> None:
    try:
        _must_be_usual(module)
    except UnfitError as unfit:
        raise RuntimeError(f"linear_cross_entropy is in the model, and now {unfit}: undo the patch first.") from None


def _result(module: Any, out: Any, wanted: Labels, tuple_wanted: bool) -> Any:
    loss = wanted.loss
    assert loss is not None, "the model did not call its head"
    balance = out.get("aux_loss")  # of experts, which transformers adds where there are labels
    if balance is not None:
        loss = loss + module.router_aux_loss_coef * balance.to(loss.device)
    values = {name: value for name, value in out.items() if name not in {"loss", "logits"}}
    result = type(out)(loss=loss, **values)
    return result.to_tuple() if tuple_wanted else result


def shifted(labels: Tensor, more: dict[str, Any]) -> Tensor:
    """For each token the one that follows it, as transformers' loss has it."""
    done = more.get("shift_labels")
    if done is not None:
        return torch.as_tensor(done)
    return nn.functional.pad(labels, (0, 1), value=more.get("ignore_index", -100))[..., 1:]


def _head_forward(head: nn.Linear, hidden: Tensor, with_triton: bool | None) -> Tensor:
    wanted = NOW.get()
    if wanted is None or not any(head is one for one in wanted.heads):
        return nn.functional.linear(hidden, head.weight, head.bias)
    if hidden.shape[:-1] != wanted.targets.shape:  # logits_to_keep, which transformers refuses with labels too
        shapes = f"{tuple(hidden.shape[:-1])} and {tuple(wanted.targets.shape)}"
        raise ValueError(f"hidden states and labels are of {shapes} tokens: call it without logits_to_keep")
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        hidden = hidden.to(torch.get_autocast_dtype(kind))
    if wanted.divisor != 1.0:
        hidden = hidden / wanted.divisor  # the same logits, for one row of features instead of one of the vocabulary
    on_cpu = kind == "cpu" and with_triton is None
    loss = (cpu_loss.linear_cross_entropy if on_cpu else partial(linear_cross_entropy, with_triton=with_triton))(
        hidden.reshape(-1, hidden.shape[-1]),
        head.weight,
        wanted.targets.reshape(-1).to(hidden.device),
        ignore_index=wanted.ignore_index,
        softcap=wanted.softcap,
        reduction="mean" if wanted.items is None else "sum",
    )
    if wanted.items is not None:
        items = wanted.items.to(loss.device) if isinstance(wanted.items, Tensor) else wanted.items
        loss = loss / items
    wanted.loss = loss
    return hidden.new_empty(*hidden.shape[:-1], 0)
