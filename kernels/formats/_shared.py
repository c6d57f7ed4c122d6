"""What formats share: rows in pieces, two codes of four bits in a byte, scales of groups of columns."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from runner.kernels.launch import divide_up, jit, tl

PIECE = 1 << 24  # weights quantised at a time: a handful of fp32 copies of them then take 300 MB at most


def in_pieces(function: Callable[[Tensor], tuple[Tensor, ...]], weight_NK: Tensor) -> tuple[Tensor, ...]:
    """What `function` gives for pieces of whole rows in fp32, a multiple of 128 each, put together again."""
    rows = max(128, PIECE // weight_NK.shape[1] // 128 * 128)
    pieces = [function(piece.float()) for piece in weight_NK.split(rows)]
    return tuple(torch.cat(same) for same in zip(*pieces, strict=True))


def in_groups(weight_NK: Tensor, size: int) -> Tensor:
    """[N, groups, size]: columns in groups, the last one filled up with zeros."""
    rows, columns = weight_NK.shape
    groups = divide_up(columns, size)
    return torch.nn.functional.pad(weight_NK, (0, groups * size - columns)).view(rows, groups, size)


def divided(weight: Tensor, scale: Tensor) -> Tensor:
    """weight / scale, and 0 where the scale is 0, which it only is where nothing but 0 is to be stored."""
    return torch.where(scale == 0, 0.0, weight / scale)


def packed(codes: Tensor) -> Tensor:
    """Codes below 16 [..., K], two to a byte [..., K / 2]: the even one in the higher four bits, as bitsandbytes."""
    codes = codes.to(torch.uint8)
    return codes[..., 0::2] << 4 | codes[..., 1::2]


def unpacked(codes: Tensor, levels: Tensor) -> Tensor:
    """The levels [..., K] (of 16) that packed codes [..., K / 2] stand for; one look-up a byte, which CPUs do fast."""
    both = torch.stack([levels.repeat_interleave(16), levels.repeat(16)], 1)
    return torch.nn.functional.embedding(codes.int(), both).flatten(-2)


@jit
def nibbles(codes_ptr, row_N, inside_N, start, stride, BLOCK_K: tl.constexpr):
    """Higher and lower codes [BLOCK_N, BLOCK_K / 2] of rows of `stride` bytes; read as bytes that lie side by side."""
    column = start // 2 + tl.arange(0, BLOCK_K // 2)
    inside = inside_N[:, None] & (column < stride)[None, :]
    both = tl.load(codes_ptr + row_N[:, None] * stride + column[None, :], mask=inside, other=0).to(tl.int32)
    return both >> 4, both & 15


@jit
def interleaved(high, low, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """[BLOCK_N, BLOCK_K]: the values of higher and lower codes in turn."""
    return tl.reshape(tl.join(high, low), (BLOCK_N, BLOCK_K))


@jit
def spread(scale, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUPS: tl.constexpr):
    """[BLOCK_N, BLOCK_K]: one value [BLOCK_N, GROUPS] for every column of its group."""
    wide = tl.broadcast_to(scale[:, :, None], (BLOCK_N, GROUPS, BLOCK_K // GROUPS))
    return tl.reshape(wide, (BLOCK_N, BLOCK_K))


@jit
def e4m3(code):
    """The value of bytes that are e4m3 numbers: by way of fp16, whose bias is 8 more, so that compute capability 8.0
    and the interpreter know it too. Exact, subnormals included; NaN is never stored."""
    bits = ((code.to(tl.int16) & 0x80) << 8) | ((code.to(tl.int16) & 0x7F) << 7)
    return bits.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
