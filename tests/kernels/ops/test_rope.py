"""RoPE on packed documents."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from runner.kernels.ops.rope import reference, rope
from tests.kernels.criterion import DTYPES, check, packed_positions, randn, rotary_tables


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("heads", "features", "pairs"),
    [((3, 1), 64, 32), ((5, 5), 63, 13), ((14, 2), 128, 32), ((1, 1), 2, 1), ((2, 1), 256, 128)],
    ids=str,
)
def test_rope(device: str, heads: tuple[int, int], features: int, pairs: int, dtype: torch.dtype) -> None:
    positions = packed_positions([5, 0, 1, 17], device)
    q, k = (randn(len(positions), count, features, dtype=dtype, device=device) for count in heads)
    cos, sin = rotary_tables(20, pairs, device)
    check(
        partial(_turned, rope, cos, sin, positions, True), partial(_turned, reference, cos, sin, positions, None), q, k
    )


def test_rope_of_heads_before_tokens_and_of_tables_as_transformers_has_them(device: str) -> None:
    """[H, T, D] seen as [T, H, D], and tables of twice the columns, whose halves are alike."""
    positions = packed_positions([1, 62, 0], device).to(torch.int32)
    cos, sin = (torch.cat([table, table], dim=1)[:, :16] for table in rotary_tables(70, 16, device))
    q, k = (randn(count, 63, 32, dtype=torch.float32, device=device) for count in (3, 1))

    def seen(function: object, asked: bool | None, q: Tensor, k: Tensor) -> tuple[Tensor, ...]:
        return _turned(function, cos, sin, positions, asked, q.transpose(0, 1), k.transpose(0, 1))

    check(partial(seen, rope, True), partial(seen, reference, None), q, k)


def test_rope_is_the_formula_of_transformers() -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    q, k = torch.randn(7, 3, 8), torch.randn(7, 1, 8)
    cos, sin = rotary_tables(7, 4, "cpu")
    whole = [torch.cat([table, table], dim=1)[None] for table in (cos, sin)]
    theirs = apply_rotary_pos_emb(q.transpose(0, 1)[None], k.transpose(0, 1)[None], *whole)
    for one, other in zip(rope(q, k, cos, sin, torch.arange(7)), theirs, strict=True):
        torch.testing.assert_close(one, other[0].transpose(0, 1))


def test_rope_of_no_tokens(device: str) -> None:
    q = torch.ones(0, 2, 8, device=device)
    turned, _ = rope(
        q, q, *rotary_tables(3, 4, device), torch.zeros(0, dtype=torch.int64, device=device), with_triton=True
    )
    assert turned.shape == q.shape


def test_rope_refuses_what_does_not_belong_together() -> None:
    q, (cos, sin) = torch.ones(3, 2, 8), rotary_tables(3, 4, "cpu")
    with pytest.raises(ValueError, match=r"must be \[T, H, D\]"):
        rope(q, q, cos, sin, torch.arange(2))
    with pytest.raises(ValueError, match="a column for each pair"):
        rope(q, q, *rotary_tables(3, 5, "cpu"), torch.arange(3))


def _turned(
    function: object, cos: Tensor, sin: Tensor, positions: Tensor, asked: bool | None, q: Tensor, k: Tensor
) -> tuple[Tensor, ...]:
    options = {} if asked is None else {"with_triton": asked}
    return function(q, k, cos, sin, positions, **options)  # type: ignore[operator, no-any-return]
