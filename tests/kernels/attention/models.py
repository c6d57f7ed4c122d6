"""Tiny models whose attention is compared with transformers' eager one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.registry import tiny_llm

REFUSED = {"mpnet"}
FAMILIES = [name for name in tiny_llm.MODELS if name not in REFUSED]
ENCODERS = {"bert", "roberta", "xlm-roberta", "modernbert"}
LENGTH = 13


def model(name: str) -> Any:
    """The tiny model of a family, attending eagerly."""
    made = tiny_llm.model(name)
    made.set_attn_implementation("eager")
    return made


def inputs(name: str, kind: str) -> tuple[dict[str, Any], Tensor]:
    """Inputs of a model, and where its outputs count: [rows, LENGTH]."""
    rows = 1 if kind == "packed" else 2
    ids = torch.randint(3, 40, (rows, LENGTH))
    given: dict[str, Any] = {"input_ids": ids}
    counts = torch.ones_like(ids, dtype=torch.bool)
    if kind in {"left", "right"}:
        counts[1, slice(0, 4) if kind == "left" else slice(-4, None)] = False
        given["attention_mask"] = counts.long()
    if kind == "packed":
        given["position_ids"] = torch.cat([torch.arange(n) for n in (4, 1, 8)])[None]
        given["use_cache"] = False  # with a cache, transformers takes no notice of positions that restart
    if name == "gemma3-vision":
        given["token_type_ids"] = torch.zeros_like(ids)
    return given, counts


def outputs(made: Any, given: dict[str, Any]) -> Tensor:
    """Logits, or the last hidden states of an encoder."""
    found = made(**given)
    out: Tensor = found.logits if "logits" in found else found.last_hidden_state
    return out


def both(made: Any, given: dict[str, Any], counts: Tensor, upstream: Tensor) -> dict[str, Tensor]:
    """Outputs that count, and the gradients of all parameters that got one."""
    made.zero_grad()
    out = outputs(made, given)[counts]
    (out * upstream[: len(out)]).sum().backward()
    found = {name: one.grad.clone() for name, one in made.named_parameters() if one.grad is not None}
    return {"outputs": out.detach(), **found}
