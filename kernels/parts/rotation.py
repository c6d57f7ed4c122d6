"""The turn of rotary embeddings inside kernels, shared by those that do it alone and after a norm.

The first 2 * HALF columns of a head turn in pairs (c, c + HALF) by the angle of the token's position; the rest stays.
With the partner of each column, the angle's cosine and its signed sine that is one line for all columns:
turned = x * cos + x[partner] * sin, where the others have cos 1, sin 0 and are their own partner; back with -sin.
"""

from __future__ import annotations

from torch import Tensor

from runner.kernels.launch import jit, tl


@jit
def partner_of(columns, HALF: tl.constexpr):
    """The column that each turns with."""
    back = tl.where(columns < 2 * HALF, columns - HALF, columns)
    return tl.where(columns < HALF, columns + HALF, back)


@jit
def angles(cos_ptr, sin_ptr, position, cos_stride, sin_stride, columns, inside, HALF: tl.constexpr):
    """Cosine and signed sine of every row (of a position) and column."""
    index = tl.where(columns < HALF, columns, columns - HALF)[None, :]
    turns = inside & (columns < 2 * HALF)[None, :]
    cos = tl.load(cos_ptr + position[:, None] * cos_stride + index, mask=turns, other=1.0).to(tl.float32)
    sin = tl.load(sin_ptr + position[:, None] * sin_stride + index, mask=turns, other=0.0).to(tl.float32)
    return cos, tl.where((columns < HALF)[None, :], -sin, sin)


def must_fit(q_THD: Tensor, k_TGD: Tensor, cos_PC: Tensor, sin_PC: Tensor, positions_T: Tensor) -> None:
    """Raises ValueError where shapes do not belong together: kernels would read past the end."""
    tokens, _, features = q_THD.shape
    if k_TGD.shape[0] != tokens or k_TGD.shape[2] != features or positions_T.shape != (tokens,):
        shapes = [tuple(x.shape) for x in (q_THD, k_TGD, positions_T)]
        raise ValueError(f"q, k and positions are {shapes}: they must be [T, H, D], [T, G, D] and [T].")
    if cos_PC.shape != sin_PC.shape or 2 * cos_PC.shape[1] > features:
        shapes = [tuple(x.shape) for x in (cos_PC, sin_PC)]
        raise ValueError(
            f"cos and sin are {shapes}: they must be alike, a column for each pair of {features} features."
        )


def dense(x: Tensor) -> Tensor:
    """`x` with its last dimension side by side; copies only where it is not."""
    return x if x.stride(-1) == 1 else x.contiguous()
