"""Weights as whole numbers: what is stored, what comes back, how far off it is."""

from __future__ import annotations

import pytest
import torch

from runner.asr.quantise import rounding


def matrix(rows: int = 6, columns: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_int8_is_off_by_half_a_step_at_most() -> None:
    weight = matrix()
    made = rounding.int8(weight)
    assert made.values.dtype == torch.int8 and made.scale.shape == (6,)
    assert ((made.exact() - weight).abs() <= made.scale[:, None] / 2 * 1.0001).all()


def test_int8_keeps_the_shape_of_a_convolution_and_rows_of_zeros() -> None:
    weight = matrix(4, 15).view(4, 5, 3)
    weight[2] = 0
    made = rounding.int8(weight)
    assert made.values.shape == made.exact().shape == (4, 5, 3)
    assert not made.exact()[2].any() and torch.isfinite(made.exact()).all()


@pytest.mark.parametrize("group", [16, 32, 64])
def test_int4_takes_half_a_byte_a_weight_and_a_scale_a_group(group: int) -> None:
    weight = matrix()
    made = rounding.int4(weight, group=group)
    assert made.values.dtype == torch.uint8 and made.values.shape == (6, 32)
    assert made.scale.dtype == torch.float16 and made.scale.shape == (6, 64 // group)
    assert made.exact().shape == weight.shape


def test_int4_keeps_the_shape_of_a_convolution_and_groups_run_through_its_kernel() -> None:
    weight = matrix(4, 48).view(4, 6, 8)
    made = rounding.int4(weight, group=16)
    assert made.values.shape == (4, 3, 8) and made.scale.shape == (4, 3)
    assert torch.equal(made.exact(), rounding.int4(weight.flatten(1), group=16).exact().view(4, 6, 8))


def test_int4_gives_back_what_four_bits_can_hold() -> None:
    weight = torch.tensor([[-7, -6, 0, 1, 2, 5, 6, 7] * 2]).float() * 0.5
    assert torch.equal(rounding.int4(weight, group=16).exact(), weight)


def test_int4_searches_scales_that_beat_the_plain_one() -> None:
    weight = matrix(64, 128)
    groups = weight.view(-1, 32)
    scale = (groups.abs().amax(dim=1, keepdim=True) / 7).half().float()
    plain = (torch.round(groups / scale) * scale).view_as(weight)
    searched = rounding.int4(weight, group=32).exact()
    assert (searched - weight).square().sum() < 0.97 * (plain - weight).square().sum()


def test_a_group_of_zeros_stays_zero() -> None:
    assert not rounding.int4(torch.zeros(2, 32), group=32).exact().any()
