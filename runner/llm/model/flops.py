"""Operations of training on one token, for the share of the device's rate that is used (MFU)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from runner.kernels.quantised import QuantisedLinear


def per_token(facts: Mapping[str, Any], *, trained: int | None) -> float:
    """Forward and backward in multiplications and additions, by products with weights (Kaplan et al. 2020, 2.1).

    Each weight that a token meets takes 2 forward, 2 for the gradient of its input and, where it is trained, 2 for its
    own. ``trained`` is the number of an adapter's weights, None where all are. Attention's scores, which grow with the
    documents, are left out, as is what checkpointing computes again.
    """
    met = facts["parameters"] - facts["vision_parameters"] - facts["embedding_parameters"]
    met += facts["vocab_size"] * facts["hidden"] if facts["head"] else 0
    if experts := facts["experts"]:
        matrices = (3 if facts["gated"] else 2) * facts["hidden"] * experts["intermediate"]
        met -= len(experts["layers"]) * (experts["count"] - experts["per_token"]) * matrices
    return float(6 * met if trained is None else 4 * met + 6 * trained)


def packed_parameters(model: nn.Module) -> int:
    """Weights that are quantised, which are no parameters of torch's."""
    layers = (module for module in model.modules() if isinstance(module, QuantisedLinear))
    return sum(layer.in_features * layer.out_features for layer in layers)
