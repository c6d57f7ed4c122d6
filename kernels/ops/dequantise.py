"""Dequantise: the weight [N, K] that the parts of a quantised one stand for; one launch a weight, whatever its format.

Formulas and sources stand in `runner.kernels.formats`, the kernel in `runner.kernels.quantised`, where other ops find
it. Values are computed in fp32 and rounded once, without fused products and sums: kernel and reference give the same
bits in every format. No gradient flows: a quantised weight is not trained.
"""

from __future__ import annotations

import torch
from torch import Tensor

from runner.kernels import quantised
from runner.kernels.quantised import QuantisedWeight


def dequantise(weight: QuantisedWeight, dtype: torch.dtype | None = None, with_triton: bool | None = None) -> Tensor:
    """The weight [N, K], by default in the dtype that it was quantised from."""
    return weight.dequantise(dtype, with_triton)


def reference(weight: QuantisedWeight, dtype: torch.dtype | None = None) -> Tensor:
    """The same in plain torch."""
    return quantised.reference(weight, dtype)
