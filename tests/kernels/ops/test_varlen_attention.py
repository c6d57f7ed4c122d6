"""Attention of packed documents."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from runner.kernels.ops import varlen_attention as module
from runner.kernels.ops.varlen_attention import reference, varlen_attention
from runner.kernels.parts import varlen
from runner.kernels.parts.scores import sides
from tests.kernels.criterion import DTYPES, check, poisoned, randn

EVERY = {"window": 3, "softcap": 2.0}


def starts_of(lengths: list[int], device: str) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)


def in_dtype(*tensors: Tensor, **options: Any) -> Tensor:
    """The reference with products of tensors in their own dtype, as torch's attention has them on every device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "wide", lambda x: x)
        return reference(*tensors, **options)


def compare(
    lengths: list[int],
    device: str,
    *,
    heads: tuple[int, int] = (2, 1),
    features: int = 8,
    width: int | None = None,
    dtype: torch.dtype = torch.float32,
    keys: list[int] | None = None,
    rest: int = 0,
    sinks: bool = False,
    **options: Any,
) -> None:
    """Documents of so many queries, `rest` tokens after the last, against the reference."""
    starts, k_starts = starts_of(lengths, device), None if keys is None else starts_of(keys, device)
    tokens, key_tokens = sum(lengths) + rest, sum(lengths if keys is None else keys) + rest
    shapes = [(tokens, heads[0], features), (key_tokens, heads[1], features), (key_tokens, heads[1], width or features)]
    tensors = [randn(*shape, dtype=dtype, device=device) for shape in shapes]
    tensors += [randn(heads[0], dtype=dtype, device=device)] if sinks else []

    longest = max([*lengths, 1]) if device == "cuda" else 1  # small blocks for the interpreter, never another result

    def of(function: Callable[..., Tensor], **more: Any) -> Callable[..., Tensor]:
        return lambda q, k, v, s=None: function(q, k, v, starts, cu_seqlens_k=k_starts, sinks_H=s, **options, **more)

    check(
        of(varlen_attention, max_seqlen=longest, with_triton=True), of(reference), *tensors, torch_in_dtype=of(in_dtype)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_varlen_attention(device: str, dtype: torch.dtype) -> None:
    compare([3, 0, 20], device, dtype=dtype)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_varlen_attention_with_all_there_is(device: str, dtype: torch.dtype, causal: bool) -> None:
    # a sink a head, whose gradients are two sums that may cancel: in bfloat16 o, of which they are made, is rounded
    sinks = dtype == torch.float32
    compare([1, 19], device, dtype=dtype, causal=causal, scale=0.3, sinks=sinks, **EVERY)


def test_varlen_attention_both_ways(device: str) -> None:
    compare([1, 0, 18], device, heads=(2, 2), causal=False, softcap=1.5)


@pytest.mark.parametrize("features", [6, 63, 80])
def test_varlen_attention_of_features_that_fill_no_block(device: str, features: int) -> None:
    compare([5], device, features=features, heads=(1, 1))


def test_varlen_attention_of_values_of_another_size(device: str) -> None:
    compare([5], device, features=24, width=16)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
def test_varlen_attention_of_keys_of_other_lengths(device: str, causal: bool) -> None:
    """A prefix of keys, more queries than keys (some see none), none of one or the other."""
    compare([3, 5, 2, 0], device, keys=[20, 2, 0, 3], causal=causal, window=7)


def test_varlen_attention_with_a_window_past_int32(device: str) -> None:
    compare([3], device, heads=(1, 1), causal=False, window=2**31 - 1)


def test_varlen_attention_of_tokens_after_the_last_document(device: str) -> None:
    compare([2], device, rest=19, heads=(1, 1), causal=False)


@pytest.mark.parametrize("lengths", [[], [0, 0]], ids=str)
def test_varlen_attention_of_no_tokens(device: str, lengths: list[int]) -> None:
    q = torch.ones(0, 2, 8, device=device, requires_grad=True)
    out = varlen_attention(q, q, q, starts_of(lengths, device), max_seqlen=0, with_triton=True)
    assert out.shape == (0, 2, 8)
    assert torch.autograd.grad(out.sum(), q)[0].shape == q.shape


def test_varlen_attention_where_the_tensors_lie_and_the_same_bits_again(device: str) -> None:
    """q, k and v as parts of one projection, and the gradient of a sum, which is no memory of its own."""
    packed = randn(5, 4, 3, 8, dtype=torch.float32, device=device).transpose(1, 2).requires_grad_()
    starts = starts_of([2, 3], device)

    def gradient(function: Callable[..., Tensor], **options: Any) -> Tensor:
        q, k, v = packed[:, 0], packed[:, 1, :2], packed[:, 2, :2]
        return torch.autograd.grad(function(q, k, v, starts, **options).sum(), packed)[0]

    with poisoned():
        first, second = (gradient(varlen_attention, max_seqlen=3, with_triton=True) for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, gradient(reference), rtol=1e-4, atol=1e-5)


def test_varlen_attention_takes_the_reference_on_a_cpu() -> None:
    q = torch.randn(5, 2, 4, dtype=torch.float64)
    starts = starts_of([5], "cpu")
    assert torch.equal(varlen_attention(q, q, q, starts, max_seqlen=5), reference(q, q, q, starts))


def test_the_reference_is_attention_of_torch_document_by_document() -> None:
    q, k, v = torch.randn(7, 4, 8), torch.randn(7, 2, 8), torch.randn(7, 2, 8)
    found = reference(q, k, v, starts_of([3, 4], "cpu"))
    for part in (slice(0, 3), slice(3, 7)):
        words = [x[part].transpose(0, 1)[None] for x in (q, k, v)]
        wanted = torch.nn.functional.scaled_dot_product_attention(*words, is_causal=True, enable_gqa=True)
        torch.testing.assert_close(found[part], wanted[0].transpose(0, 1))


def test_a_window_is_that_of_transformers() -> None:
    assert sides(True, 3) == (2, 0)
    assert sides(False, 3) == (2, 2)
    assert sides(True, None) == (None, 0)
    assert sides(False, None) == (None, None)


def test_tiles_are_smaller_where_programs_have_less_room(monkeypatch: pytest.MonkeyPatch) -> None:
    x = SimpleNamespace(dtype=torch.bfloat16, is_cuda=True, device="cuda")
    for room, table in ((99, varlen.NARROW), (163, varlen.TILES), (227, varlen.TILES)):
        properties = SimpleNamespace(shared_memory_per_block_optin=room * 1024)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, properties=properties: properties)
        assert [varlen.tile("dkv", x, widest) for widest in (8, 65, 200)] == list(table["dkv"].values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k_TGD": torch.ones(5, 3, 8)}, r"\[T, G, D\]"),
        ({"k_TGD": torch.ones(5, 3, 8), "v_TGE": torch.ones(5, 3, 8)}, "G must divide H"),
        ({"q_THD": torch.ones(4, 4, 8)}, "cu_seqlens_k"),
        ({"v_TGE": torch.ones(5, 2, 8).half()}, "alike"),
        ({"cu_seqlens": torch.tensor([0.0, 5.0])}, "cu_seqlens is"),
        ({"cu_seqlens_k": torch.tensor([0, 2, 5])}, "cu_seqlens_k is"),
        ({"sinks_H": torch.ones(3)}, "sinks"),
        ({"window": 0}, "window is 0"),
        ({"scale": -1.0}, "scale is -1.0"),
    ],
    ids=lambda change: next(iter(change)) if isinstance(change, dict) else "",
)
def test_varlen_attention_refuses(change: dict[str, Any], words: str) -> None:
    usual = {"q_THD": torch.ones(5, 4, 8), "k_TGD": torch.ones(5, 2, 8), "v_TGE": torch.ones(5, 2, 8)}
    with pytest.raises(ValueError, match=words):
        varlen_attention(**({**usual, "cu_seqlens": torch.tensor([0, 5])} | change), max_seqlen=5)
