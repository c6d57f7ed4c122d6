"""Dequantising a weight, in every format."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from runner.kernels import formats
from runner.kernels.launch import jit, launch, tl
from runner.kernels.ops.dequantise import dequantise, reference
from runner.kernels.quantised import QuantisedWeight, quantise
from tests.kernels.criterion import DTYPES, poisoned

FORMATS = formats.names()
SHAPES = [(1, 1), (3, 63), (63, 64), (5, 1000), (129, 130)]


def kernel(weight: QuantisedWeight, dtype: torch.dtype | None = None) -> Tensor:
    with poisoned():
        return dequantise(weight, dtype, with_triton=True)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_dequantise(device: str, name: str, shape: tuple[int, int]) -> None:
    for dtype in DTYPES:
        weight = quantise(torch.randn(shape, device=device).to(dtype), name)
        ours = kernel(weight)
        assert ours.dtype == dtype
        assert ours.shape == shape
        assert torch.equal(ours, reference(weight))


@pytest.mark.parametrize("name", FORMATS)
def test_dequantise_gives_every_number_that_a_code_may_stand_for(device: str, name: str) -> None:
    """Random codes, all 256 bytes of them, under random scales; NaN of e4m3 apart, which is never stored."""
    weight = quantise(torch.randn(130, 260, device=device), name)
    codes = torch.randint(0, 256, weight.parts["codes"].shape, device=device).to(torch.uint8)
    if name.startswith("fp8"):
        codes = torch.where(codes & 0x7F == 0x7F, 0, codes)
    parts = {**weight.parts, "codes": codes.view(weight.parts["codes"].dtype)}
    if name == "nf4":
        parts["absmax_codes"] = torch.randint(0, 256, parts["absmax_codes"].shape, device=device).to(torch.uint8)
    weight = QuantisedWeight(format=name, shape=weight.shape, dtype=torch.float32, parts=parts)
    assert torch.equal(kernel(weight), reference(weight))


@pytest.mark.parametrize("blocks", [(16, 32), (32, 64), (64, 128)], ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_dequantise_in_tiles_of_other_kernels(device: str, name: str, blocks: tuple[int, int]) -> None:
    """Of those that multiply: `decode` takes every tile, and gives 0 outside of the weight."""
    weight = quantise(torch.randn(40, 140, device=device), name)
    (rows, columns), high, wide = weight.shape, *blocks
    padded = torch.full((-(-rows // high) * high, -(-columns // wide) * wide), float("nan"), device=device)
    options = {"DECODE": formats.load(name).decode, "BLOCK_N": high, "BLOCK_K": wide}
    programs = (padded.shape[0] // high, padded.shape[1] // wide)
    launch(tiles_kernel, programs, *weight.operands(), padded, rows, columns, **options, enable_fp_fusion=False)
    assert torch.equal(padded[:rows, :columns], reference(weight))
    assert not padded[rows:].any()
    assert not padded[:, columns:].any()


@jit
def tiles_kernel(
    a_ptr,
    b_ptr,
    c_ptr,
    d_ptr,
    e_ptr,
    out_ptr,
    rows,
    columns,
    DECODE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    start = tl.program_id(1) * BLOCK_K
    tile = DECODE(a_ptr, b_ptr, c_ptr, d_ptr, e_ptr, row, row < rows, start, columns, BLOCK_N, BLOCK_K)
    place = row[:, None] * (tl.num_programs(1) * BLOCK_K) + (start + tl.arange(0, BLOCK_K))[None, :]
    tl.store(out_ptr + place, tile)


@pytest.mark.parametrize("name", FORMATS)
def test_dequantise_takes_the_reference_on_a_cpu(name: str) -> None:
    weight = quantise(torch.randn(3, 70, dtype=torch.bfloat16), name)
    assert torch.equal(dequantise(weight), reference(weight))
    assert torch.equal(dequantise(weight, torch.float64), reference(weight, torch.float32).double())
