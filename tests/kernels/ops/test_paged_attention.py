"""Decode attention over pages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from runner.kernels.ops import paged_attention as module
from runner.kernels.ops.paged_attention import paged_attention, reference
from tests.kernels.criterion import DTYPES, error, floor, poisoned, randn


def compare(
    lengths: list[int],
    device: str,
    *,
    heads: tuple[int, int] = (2, 1),
    features: int = 8,
    width: int | None = None,
    size: int = 3,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> None:
    """Against the reference, in pages of NaN but for the tokens, named by a table of nonsense but for the pages."""
    tensors, table = pages(lengths, heads, features, width or features, size, dtype, device)
    places = (table, torch.tensor(lengths, device=device, dtype=torch.int32))
    truth = reference(*[x.double() for x in tensors], *places, **options)
    usual = reference(*tensors, *places, **options)
    before = [x.clone() for x in tensors]
    with poisoned():
        ours = paged_attention(*tensors, *places, with_triton=True, **options)
    for was, now in zip(before, tensors, strict=True):
        assert torch.equal(was.nan_to_num(), now.nan_to_num()), "written into an input"
    assert ours.dtype == dtype
    assert ours.shape == truth.shape
    assert error(ours, truth) <= 2 * error(usual, truth) + floor(dtype)


def pages(
    lengths: list[int], heads: tuple[int, int], features: int, width: int, size: int, dtype: torch.dtype, device: str
) -> tuple[list[Tensor], Tensor]:
    entries = max(-(-length // size) for length in lengths) + 1
    order = torch.randperm(len(lengths) * entries + 1)
    table = torch.full((len(lengths), entries), -(2**30))
    shape = (len(order), size, heads[1])
    k, v = (torch.full((*shape, columns), torch.nan, device=device, dtype=dtype) for columns in (features, width))
    for number, length in enumerate(lengths):
        for token in range(length):
            entry, place = divmod(token, size)
            page = table[number, entry] = order[number * entries + entry]
            k[page, place] = randn(heads[1], features, dtype=dtype, device=device)
            v[page, place] = randn(heads[1], width, dtype=dtype, device=device)
    return [randn(len(lengths), heads[0], features, dtype=dtype, device=device), k, v], table.to(device, torch.int32)


@pytest.fixture
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes milliseconds for each."""
    monkeypatch.setattr(module, "ENOUGH", 6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.usefixtures("few_programs")
def test_paged_attention(device: str, dtype: torch.dtype) -> None:
    compare([5, 0, 70], device, dtype=dtype)


@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.usefixtures("few_programs")
def test_paged_attention_with_all_there_is(device: str, size: int) -> None:
    sinks = randn(6, dtype=torch.float32, device=device)
    compare([1, 40, 0, 80], device, heads=(6, 2), size=size, window=37, softcap=2.0, scale=0.3, sinks_H=sinks)


@pytest.mark.parametrize("features", [6, 63])
def test_paged_attention_of_features_that_fill_no_block(device: str, features: int) -> None:
    compare([9], device, heads=(1, 1), features=features, width=20, size=4)


def test_paged_attention_in_one_split(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENOUGH", 1)
    compare([0, 70], device, sinks_H=torch.ones(2, device=device))


def test_paged_attention_of_a_sequence_longer_than_its_table(device: str) -> None:
    (q, k, v), table = pages([3, 6], (2, 1), 8, 8, 3, torch.float32, device)
    lengths = torch.tensor([3, 10], device=device)  # three pages hold nine
    for with_triton in (True, False):
        out = paged_attention(q, k, v, table, lengths, with_triton=with_triton)
        assert out[0].isfinite().all()
        assert out[1].isnan().all()


def test_paged_attention_of_no_sequences(device: str) -> None:
    pages, table = torch.ones(2, 3, 1, 8, device=device), torch.zeros(0, 4, dtype=torch.int32, device=device)
    out = paged_attention(pages[0, :0], pages, pages, table, table[:, 0], with_triton=True)
    assert out.shape == (0, 1, 8)


def test_paged_attention_has_no_backward(device: str) -> None:
    (q, k, v), table = pages([3], (2, 1), 8, 8, 3, torch.float32, device)
    with pytest.raises(ValueError, match="no backward"):
        paged_attention(q.requires_grad_(), k, v, table, torch.tensor([3], device=device), with_triton=True)


def test_paged_attention_takes_the_reference_on_a_cpu() -> None:
    (q, k, v), table = pages([3, 0], (2, 1), 8, 8, 3, torch.float64, "cpu")
    lengths = torch.tensor([3, 0])
    assert torch.equal(paged_attention(q, k, v, table, lengths), reference(q, k, v, table, lengths))


def test_the_reference_is_attention_of_torch_over_the_tokens_of_the_pages() -> None:
    q, k, v = torch.randn(1, 4, 8), torch.randn(3, 2, 2, 8), torch.randn(3, 2, 2, 8)
    found = reference(q, k, v, torch.tensor([[2, 0]]), torch.tensor([3]))
    tokens = [x[[2, 0]].flatten(0, 1)[:3].transpose(0, 1) for x in (k, v)]
    wanted = torch.nn.functional.scaled_dot_product_attention(q[0][:, None], *tokens, enable_gqa=True)
    torch.testing.assert_close(found[0], wanted[:, 0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k_pages_PSGD": torch.ones(2, 3, 8)}, r"\[P, S, G, D\]"),
        ({"q_BHD": torch.ones(1, 3, 8)}, "G must divide H"),
        ({"q_BHD": torch.ones(1, 4, 8).half()}, "alike"),
        ({"lengths_B": torch.tensor([3, 3])}, "Table and lengths"),
        ({"lengths_B": torch.tensor([3.0])}, "int32"),
        ({"sinks_H": torch.ones(3)}, "sinks"),
        ({"softcap": 0.0}, "softcap is 0.0"),
    ],
    ids=lambda change: next(iter(change)) if isinstance(change, dict) else "",
)
def test_paged_attention_refuses(change: dict[str, Any], words: str) -> None:
    pages, table = torch.ones(2, 3, 2, 8), torch.tensor([[0, 1]])
    usual = {"q_BHD": torch.ones(1, 4, 8), "k_pages_PSGD": pages, "v_pages_PSGE": pages, "block_table_BL": table}
    with pytest.raises(ValueError, match=words):
        paged_attention(**({**usual, "lengths_B": torch.tensor([3])} | change))
