"""Our attention in a model's layers, by transformers' own registry: see `runner.kernels.attention`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from runner.kernels.attention import use_attention
from runner.kernels.attention.apply import must_suit
from runner.kernels.places import Edit, Request, UnfitError


def suits(module: nn.Module, request: Request) -> list[Edit]:
    """An attention layer: the names in the model's configs choose what it calls, so nothing of it is edited."""
    if "suits" not in request.shared:  # of a model as a whole, which is looked at once
        try:
            must_suit(request.model)
        except ValueError as error:
            request.shared["suits"] = str(error)
        else:
            request.shared["suits"] = ""
    if why := request.shared["suits"]:
        raise UnfitError(why)
    if "forward" in module.__dict__ and not hasattr(module.__dict__["forward"], "patch"):
        raise UnfitError("its forward has been replaced already: patch the model before that")
    return []


def begin(model: nn.Module, with_triton: bool | None) -> Callable[[], Callable[[], None]]:
    """What puts it into `model`, and gives its way back."""
    return partial(use_attention, model, with_triton=with_triton)
