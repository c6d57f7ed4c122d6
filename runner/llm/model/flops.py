"""Operations of training, for the share of the device's rate that is used (MFU)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from runner.kernels.quantised import QuantisedLinear


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Operations of a forward and backward pass."""

    token: float  # of one token in the layers
    head: float  # of one token in the head, which a loss may compute for fewer of them


def of(model: Any, facts: Mapping[str, Any], *, adapted: bool) -> Flops:
    """In multiplications and additions, by products with weights (Kaplan et al. 2020, 2.1).

    Each weight that a token meets takes 2 forward, 2 for the gradient of its input and, where it is trained, 2 for its
    own; beside an adapter, those of the layers are frozen. Attention's scores, which grow with the documents, are left
    out, as is what checkpointing computes again.
    """
    inputs, output = model.get_input_embeddings(), model.get_output_embeddings()
    ends = {id(one) for part in (inputs, output) if part is not None for one in part.parameters()}
    met = facts["parameters"] - facts["vision_parameters"] - facts["embedding_parameters"]
    if experts := facts["experts"]:
        matrices = (3 if facts["gated"] else 2) * facts["hidden"] * experts["intermediate"]
        met -= len(experts["layers"]) * (experts["count"] - experts["per_token"]) * matrices
    head = facts["vocab_size"] * facts["hidden"] if facts["head"] else 0
    head_trained = output is not None and any(one.requires_grad for one in output.parameters())
    if not adapted:
        return Flops(token=6.0 * met, head=6.0 * head)
    beside = sum(one.numel() for one in model.parameters() if one.requires_grad and id(one) not in ends)
    return Flops(token=4.0 * met + 6.0 * beside, head=(6.0 if head_trained else 4.0) * head)


def packed_parameters(model: nn.Module) -> int:
    """Weights that are quantised, which are no parameters of torch's."""
    layers = (module for module in model.modules() if isinstance(module, QuantisedLinear))
    return sum(layer.in_features * layer.out_features for layer in layers)
