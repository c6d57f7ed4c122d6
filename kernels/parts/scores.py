"""What kernels of attention share: products of tiles, scores in units of log 2, and which keys a block of queries sees.

A score is scale * q.k, or softcap * tanh(scale * q.k / softcap). Kernels hold s * FACTOR with the power of two in it,
since exp2 is one instruction: exp(score) = exp2(s * factor), where softcap has the factor in s already.

A query at position p sees the keys p - back ... p + ahead. `causal` is ahead = 0, and `window` w is back = w - 1, both
ways also ahead = w - 1. So a block of queries sees one span of blocks of keys, and a block of keys, with back and ahead
exchanged, is seen by one span of blocks of queries. The middle of a span needs no mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from runner.kernels.launch import jit, tl
from runner.kernels.parts.vocabulary import tanh

LOG2_E = 1.4426950408889634  # kernels hold the number itself: Triton reads no globals


def varying(*names: str) -> Callable[[Any], Any]:
    """A decorator of kernels, not to be compiled anew where one of these numbers happens to be 1 or divisible by 16."""
    return lambda kernel: kernel if tl is None else type(kernel)(kernel.fn, do_not_specialize=names)


def dense(x: Tensor) -> Tensor:
    """`x` with its last dimension side by side; copies only where it is not."""
    return x if x.stride(-1) == 1 else x.contiguous()


def sides(causal: bool, window: int | None) -> tuple[int | None, int | None]:
    """How many keys a query sees back and ahead of its own; None is all of them."""
    back = None if window is None else min(window - 1, 2**30)  # positions plus that stay within int32
    return back, 0 if causal else back


def factor(scale: float, softcap: float | None) -> float:
    """By which kernels multiply their scores to get powers of two."""
    return scale * LOG2_E if softcap is None else 1.0


def must_be_positive(**numbers: float | None) -> None:
    """Raises ValueError for a number that is given and not above 0."""
    for name, number in numbers.items():
        if number is not None and not number > 0:
            raise ValueError(f"{name} is {number!r}: it must be above 0.")


@jit
def product(a, b, UPCAST: tl.constexpr):
    """a @ b in fp32. `UPCAST`: see `runner.kernels.launch.interpreted`."""
    if UPCAST:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@jit
def rows_of(pointer, rows, stride, limit, WIDTH: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    """A tile of `rows` [R] by WIDTH columns, padded to BLOCK; 0 outside. `WHOLE`: all rows are under the limit."""
    columns = tl.arange(0, BLOCK)
    at = pointer + rows[:, None] * stride + columns[None, :]
    if WHOLE and WIDTH == BLOCK:
        values = tl.load(at)
    elif WHOLE:
        values = tl.load(at, mask=(columns < WIDTH)[None, :], other=0.0)
    elif WIDTH == BLOCK:
        values = tl.load(at, mask=(rows < limit)[:, None], other=0.0)
    else:
        values = tl.load(at, mask=(rows < limit)[:, None] & (columns < WIDTH)[None, :], other=0.0)
    return values


@jit
def store_rows(pointer, rows, stride, limit, values, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """`values` [R, BLOCK] to the rows under the limit, WIDTH columns of them."""
    columns = tl.arange(0, BLOCK)
    inside = (rows < limit)[:, None] & (columns < WIDTH)[None, :]
    tl.store(pointer + rows[:, None] * stride + columns[None, :], values.to(pointer.dtype.element_ty), mask=inside)


@jit
def bent(products, scale, softcap, CAPPED: tl.constexpr):
    """Scores of products before their factor, and the slope of the cap."""
    slope = 1.0
    if CAPPED:
        curve = tanh(products * (scale / softcap))
        slope = 1.0 - curve * curve
        products = curve * (softcap * 1.4426950408889634)
    return products, slope


@jit
def seen(positions, keys, back, ahead, BACK: tl.constexpr, AHEAD: tl.constexpr):
    """Whether a query at a position sees a key of its document; both are made to broadcast."""
    sees = keys >= 0
    if BACK:
        sees = sees & (keys >= positions - back)
    if AHEAD:
        sees = sees & (keys <= positions + ahead)
    return sees


@jit
def span(
    position,
    length,
    back,
    ahead,
    BACK: tl.constexpr,
    AHEAD: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """What ROWS rows from `position` see of `length`: from, first and last bound of what all of them see, up to.

    All but the last are multiples of BLOCK: blocks of [from, first) and [last, up to) need a mask.
    """
    low = 0
    first = 0
    high = length
    last = length
    if BACK:
        low = tl.minimum(tl.maximum(position - back, 0), length) // BLOCK * BLOCK
        first = (tl.maximum(position + (ROWS - 1) - back, 0) + (BLOCK - 1)) // BLOCK * BLOCK
    if AHEAD:
        high = tl.maximum(tl.minimum(position + ROWS + ahead, length), 0)
        last = tl.maximum(tl.minimum(position + 1 + ahead, length), 0)
    first = tl.minimum(first, (high + (BLOCK - 1)) // BLOCK * BLOCK)
    last = tl.maximum(last // BLOCK * BLOCK, first)
    return low, first, last, high


@jit
def document_of(starts_ptr, tile, documents, BLOCK: tl.constexpr):
    """The document of a tile, and the number of the tile in it.

    Document d has the tiles from starts[d] // BLOCK + d on, which are enough whatever the lengths: the list of tiles is
    known from sums of lengths alone, T // BLOCK + documents + 1 of them, without a look at the device. At most one
    tile of a document is idle. What lies after the last document counts as one more.
    """
    found = -1
    for start in range(0, documents + 1, 512):
        d = start + tl.arange(0, 512)
        first = tl.load(starts_ptr + d, mask=d <= documents, other=0) // BLOCK + d
        found += tl.sum(((first <= tile) & (d <= documents)).to(tl.int32), 0)
    return found, tile - (tl.load(starts_ptr + found) // BLOCK + found)
