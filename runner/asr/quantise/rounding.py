"""Weights as whole numbers. int8: q = round(w / s), s = max|w| / 127 for each row. int4: the same in groups of a row,
to -8..7, with the s of 24 that leaves the least squared error. Shapes: R rows (outputs), C columns (inputs), K the rest
of a row (a convolution's kernel; none in a product), G of a group; groups run through C and K together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

STEPS = 24  # scales tried for a group of int4: from half of its largest weight / 7 to all of it
AT_ONCE = 1 << 20  # weights searched at once: 20 MB


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """A weight as it is stored."""

    values: torch.Tensor  # int8 of the weight's own shape, or uint8 [R, C / 2, K]: two numbers of 4 bits, offset by 8
    scale: torch.Tensor  # fp32 [R], or fp16 [R, C K / G]

    def exact(self) -> torch.Tensor:
        """What the whole numbers stand for, in fp32 and the weight's shape."""
        if self.values.dtype == torch.int8:
            rows = self.scale.view(-1, *[1] * (self.values.ndim - 1))
            return self.values.float() * rows
        whole = torch.stack((self.values & 15, self.values >> 4), dim=2).flatten(1, 2)
        groups = whole.reshape(*self.scale.shape, -1).float() - 8
        return (groups * self.scale.float()[..., None]).view_as(whole)


def int8(weight: torch.Tensor) -> Rounded:
    """``weight`` in 8 bits, one scale for each output."""
    rows = weight.detach().float().flatten(1)
    scale = (rows.abs().amax(dim=1) / 127).clamp_min(1e-12)  # a row of zeros stays one
    values = torch.round(rows / scale[:, None]).to(torch.int8).view_as(weight)
    return Rounded(values=values, scale=scale)


def int4(weight: torch.Tensor, *, group: int) -> Rounded:
    """``weight``, [R, C, K], in 4 bits; ``group`` divides C K, and 2 divides C."""
    groups = weight.detach().float().reshape(-1, group)
    made = [_searched(some) for some in torch.split(groups, max(1, AT_ONCE // group))]
    values = torch.cat([values for values, _ in made]).view_as(weight)
    scale = torch.cat([scale for _, scale in made]).view(len(weight), -1)
    return Rounded(values=values[:, ::2] | values[:, 1::2] << 4, scale=scale)


def _searched(groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(values offset by 8, uint8; scale, fp16) of groups, [groups, G]."""
    top = groups.abs().amax(dim=1, keepdim=True) / 7
    least = torch.full_like(top, torch.inf)
    values = torch.zeros_like(groups)
    chosen = torch.ones_like(top, dtype=torch.float16)
    for share in torch.linspace(0.5, 1.0, STEPS):
        scale = (top * share).half().clamp_min(2**-24)  # the smallest that fp16 has: 0 would divide
        exact = scale.float()
        whole = torch.round(groups / exact).clamp_(-8, 7)
        error = (whole * exact - groups).square_().sum(dim=1, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        chosen = torch.where(better, scale, chosen)
        values = torch.where(better, whole, values)
    return (values + 8).to(torch.uint8), chosen
