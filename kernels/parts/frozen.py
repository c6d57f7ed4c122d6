"""A product with a frozen weight, x W^T or x W, by one of four paths; the fastest is measured once on each device.

Shapes as in `runner.kernels.parts.products`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from runner.kernels.calibration import choose
from runner.kernels.launch import power_of_two
from runner.kernels.parts.products import product
from runner.kernels.quantised import QuantisedWeight

Weight = Tensor | QuantisedWeight
PATHS = ("dequantised", "epilogue", "fused", "native")
"""`dequantised`: W in full precision, torch's product, the low-rank term added into its result; needs no Triton.
`epilogue`: W in full precision, then one Triton product that ends with the low-rank term.
`fused`: that product decodes W tile by tile, so that W in full precision exists nowhere: few rows, little memory.
`native`: x is rounded to fp8 row by row and multiplied with W's own fp8; gradients as `dequantised`. Less exact, so
that it is taken only where it is asked for by name."""
E4M3_MAX = 448.0


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """What of a layer takes no part in autograd."""

    weight: Weight
    scale: float
    path: str | None
    with_triton: bool

    def times(
        self, x_MC: Tensor, low_MR: Tensor | None, factor_RO: Tensor | None, *, transposed: bool, **more: Any
    ) -> Tensor:
        """By the path that is asked for, or the fastest: x W^T + scale * low factor, transposed x W + low factor.

        `more` is the bias, or `into`, a tensor to add the result to.
        """
        scale, path = 1.0 if transposed else self.scale, self.path
        if path is None and self.with_triton:
            path = _fastest(x_MC, self.weight, low_MR, factor_RO, transposed=transposed, scale=scale)
        path = path or "dequantised"
        return _product(path, x_MC, self.weight, low_MR, factor_RO, transposed=transposed, scale=scale, **more)


def plain(weight: Weight, dtype: torch.dtype) -> Tensor:
    """The weight [N, K] in full precision."""
    return weight.to(dtype) if isinstance(weight, Tensor) else weight.dequantise(dtype)


def _fastest(
    x_MC: Tensor, weight: Weight, low_MR: Tensor | None, factor_RO: Tensor | None, *, transposed: bool, scale: float
) -> str:
    """By measurement on this device, for rows up to the next power of two."""
    paths = ["dequantised", "epilogue", "fused"]
    if isinstance(weight, Tensor):
        paths.remove("fused")  # it has nothing to decode: the same launch as `epilogue`
    shape: dict[str, int | str] = {
        "rows": power_of_two(x_MC.shape[0]),
        "outputs": weight.shape[0],
        "inputs": weight.shape[1],
        "rank": 0 if low_MR is None else low_MR.shape[1],
        "dtype": str(x_MC.dtype),
        "format": "plain" if isinstance(weight, Tensor) else weight.format,
        "transposed": int(transposed),
    }
    arguments = (x_MC, weight, low_MR, factor_RO)
    ways = {path: partial(_product, path, *arguments, transposed=transposed, scale=scale) for path in paths}
    return choose("lora_linear", shape, ways, device=x_MC.device).name


def _product(
    path: str,
    x_MC: Tensor,
    weight: Weight,
    low_MR: Tensor | None,
    factor_RO: Tensor | None,
    *,
    transposed: bool,
    scale: float,
    bias: Tensor | None = None,
    into: Tensor | None = None,
) -> Tensor:
    """x W^T (transposed: x W) + scale * low factor + bias, in x's dtype; added to `into` where that is given."""
    if path in {"fused", "epilogue"}:
        held = plain(weight, x_MC.dtype) if path == "epilogue" else weight
        y_MO = product(x_MC, held, transposed=transposed, low_MR=low_MR, factor_RO=factor_RO, scale=scale, bias_O=bias)
        return y_MO if into is None else into.add_(y_MO)
    if path == "native" and not transposed:
        assert isinstance(weight, QuantisedWeight)
        y_MO = native_product(x_MC, weight, bias)
    elif transposed:
        held = plain(weight, x_MC.dtype)
        y_MO = x_MC @ held if into is None else into.addmm_(x_MC, held)
    else:
        y_MO = torch.nn.functional.linear(
            x_MC, plain(weight, x_MC.dtype), None if bias is None else bias.to(x_MC.dtype)
        )
    if low_MR is not None and factor_RO is not None:
        y_MO.addmm_(low_MR.to(y_MO.dtype), factor_RO.to(y_MO.dtype), alpha=scale)
    return y_MO


def native_refusal(weight: Tensor | QuantisedWeight, device: torch.device) -> str | None:
    """Why this weight cannot be multiplied in fp8 on this device; None where it can."""
    if isinstance(weight, Tensor) or weight.format != "fp8":
        return f"the weight is {'plain' if isinstance(weight, Tensor) else weight.format}, not fp8 with a scale a row"
    if weight.shape[0] % 16 or weight.shape[1] % 16:
        return f"the weight is {tuple(weight.shape)}, and fp8 products take multiples of 16"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        return f"{torch.cuda.get_device_name(device)} has no fp8 products, which begin with compute capability 8.9"
    return None


def native_product(x_MK: Tensor, weight: QuantisedWeight, bias_N: Tensor | None) -> Tensor:
    """x W^T + bias in x's dtype with both in e4m3: x by its largest value in each row, W as it is stored."""
    codes_MK, scales_M = in_e4m3(x_MK)
    scales_N, codes_NK = weight.parts["scales"], weight.parts["codes"]
    # scales by row want a bfloat16 result; the fast sum stays off, since it keeps 14 bits of fp32's 24
    y_MN = torch._scaled_mm(
        codes_MK, codes_NK.T, scale_a=scales_M[:, None], scale_b=scales_N[None, :], out_dtype=torch.bfloat16
    ).to(x_MK.dtype)
    return y_MN if bias_N is None else y_MN.add_(bias_N)


def in_e4m3(x_MK: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [M, K] and scales [M] of rows in e4m3."""
    scales_M = (x_MK.abs().amax(1).float() / E4M3_MAX).clamp_(min=torch.finfo(torch.float32).tiny)
    return (x_MK / scales_M[:, None]).clamp_(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn), scales_M
