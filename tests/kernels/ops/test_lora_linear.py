"""A frozen linear layer, plain or quantised, with its low-rank term."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from runner.kernels import formats
from runner.kernels.ops import lora_linear as module
from runner.kernels.ops.lora_linear import lora_linear, lora_linears, reference
from runner.kernels.parts.frozen import PATHS, in_e4m3
from runner.kernels.parts.products import product
from runner.kernels.quantised import QuantisedWeight, quantise
from tests.kernels.criterion import DTYPES, check, poisoned, randn

FORMATS = [None, *formats.names()]
# rows, inputs, outputs, rank: never one output with rank 1, or one row with rank 1. That leaves a gradient of one
# number, a sum which may cancel to nothing and leave errors of any size, torch's among them
SHAPES = [(65, 128, 1, 20), (1, 63, 40, 4), (70, 130, 33, 1)]
TRITON = ["epilogue", "fused"]


def tensors(shape: tuple[int, ...], dtype: torch.dtype, device: str, low: torch.dtype | None = None) -> list[Tensor]:
    """x, A, B, bias, magnitude."""
    rows, inputs, outputs, rank = shape
    sizes = [(rank, inputs), (outputs, rank), (outputs,), (outputs,)]
    x = randn(rows, inputs, dtype=dtype, device=device)
    return [x, *(randn(*size, dtype=low or dtype, device=device) for size in sizes)]


def with_a_bias(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> list[Tensor]:
    """x, A, B and the bias, but for one output, where its gradient would be one number too."""
    return tensors(shape, dtype, device)[: 4 if shape[2] > 1 else 3]


def a_weight(shape: tuple[int, ...], form: str | None, dtype: torch.dtype, device: str) -> Tensor | QuantisedWeight:
    weight = randn(shape[2], shape[1], dtype=dtype, device=device)
    return weight if form is None else quantise(weight, form)


def of(function: Callable[..., Tensor], weight: Tensor | QuantisedWeight, **options: Any) -> Callable[..., Tensor]:
    """The function of x, A, B and, where they come, bias and magnitude."""

    def call(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None, magnitude: Tensor | None = None) -> Tensor:
        more = {} if magnitude is None else {"magnitude_N": magnitude}
        return function(x, weight, a, b, scale=0.7, bias=bias, **more, **options)

    return call


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_lora_linear_of_a_plain_weight(device: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    weight, inputs = a_weight(shape, None, dtype, device), with_a_bias(shape, dtype, device)
    for path in ("dequantised", "epilogue"):
        check(of(lora_linear, weight, path=path), of(reference, weight), *inputs)


@pytest.mark.parametrize("form", formats.names())
def test_lora_linear_of_every_format(device: str, form: str) -> None:
    for dtype, shape in zip(DTYPES, SHAPES, strict=True):
        weight, inputs = a_weight(shape, form, dtype, device), with_a_bias(shape, dtype, device)
        check(of(lora_linear, weight, path="fused"), of(reference, weight), *inputs)
        check(of(lora_linear, weight), of(reference, weight), *inputs)


@pytest.mark.parametrize("path", TRITON)
def test_lora_linear_of_many_tiles_in_an_order_that_shares_them(
    device: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"BLOCK_M": 16, "BLOCK_O": 16, "BLOCK_C": 16, "BLOCK_R": 16, "num_warps": 4, "num_stages": 3}
    monkeypatch.setattr("runner.kernels.parts.products._blocks", lambda *sizes: small)
    monkeypatch.setattr("runner.kernels.parts.products.GROUP", 2)
    shape = (33, 40, 20, 20)
    weight, inputs = a_weight(shape, "nf4", torch.float32, device), tensors(shape, torch.float32, device)[:3]
    check(of(lora_linear, weight, path=path), of(reference, weight), *inputs)


@pytest.mark.parametrize("path", [None, "fused"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_lora_linear_of_dora(device: str, dtype: torch.dtype, path: str | None) -> None:
    shape = (7, 96, 33, 4)
    weight, inputs = a_weight(shape, "int4", dtype, device), tensors(shape, dtype, device)
    inputs[4] = inputs[4].abs() * 10  # as long as the rows are
    check(of(lora_linear, weight, path=path), of(reference, weight), *inputs)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_lora_linear_with_adapters_in_fp32_beside_halves(
    device: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 1000)
    shape = (70, 130, 33, 20)
    weight = a_weight(shape, "nf4", dtype, device)
    inputs = tensors(shape, dtype, device, torch.float32)
    for path in ("fused", None):
        check(of(lora_linear, weight, path=path), of(reference, weight), *inputs)


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("path", [None, "fused"])
def test_lora_linear_with_dropout(
    device: str, path: str | None, rescaled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is dropped is given, since a GPU draws other elements for each dtype; `test_lora` compares the drawing."""
    shape = (9, 64, 33, 4)
    weight, inputs = a_weight(shape, "nf4", torch.float32, device), tensors(shape, torch.float32, device)
    kept = torch.rand(9, 64, device=device) > 0.4

    def drop(x: Tensor, dropout: float, train: bool = True) -> Tensor:
        return x * kept / (1 - dropout) if dropout else x

    monkeypatch.setattr(torch.nn.functional, "dropout", drop)
    monkeypatch.setattr(torch, "native_dropout", lambda *given: (drop(*given), kept))
    ours, others = of(lora_linear, weight, path=path, dropout=0.4), of(reference, weight, dropout=0.4)
    check(ours, others, *inputs[: 5 if rescaled else 4])


@pytest.mark.parametrize("path", [None, "fused"])
def test_lora_linears_share_the_projection(device: str, path: str | None) -> None:
    shapes = [(2, 64, 48, 4), (2, 64, 16, 8), (2, 64, 17, 1)]
    weights = [
        a_weight(shape, form, torch.float32, device) for shape, form in zip(shapes, ["nf4", "fp8", None], strict=True)
    ]
    x, *rest = [
        one for shape in shapes for one in tensors(shape, torch.float32, device)[0 if shape is shapes[0] else 1 : 4]
    ]
    x = torch.stack([x, x + 1])

    def layers(given: tuple[Tensor, ...]) -> list[tuple[Any, Tensor, Tensor, float, Tensor]]:
        return [(w, *given[3 * i : 3 * i + 2], 0.5 + i, given[3 * i + 2]) for i, w in enumerate(weights)]

    def apart(x: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        return tuple(reference(x, w, a, b, scale=s, bias=bias) for w, a, b, s, bias in layers(given))

    check(lambda x, *given: lora_linears(x, layers(given), path=path), apart, x, *rest)


def test_lora_linear_in_fp8_rounds_x_and_nothing_else(device: str) -> None:
    weight = a_weight((4, 64, 48, 4), "fp8", torch.bfloat16, device)
    inputs = tensors((20, 64, 48, 4), torch.bfloat16, device)[:4]
    ours = lora_linear(inputs[0], weight, *inputs[1:3], scale=0.7, bias=inputs[3], path="native")
    codes, scales = in_e4m3(inputs[0])
    rounded = codes.double() * scales.double()[:, None]
    x, a, b, bias = (one.double() for one in inputs)
    truth = rounded @ weight.dequantise(torch.float64).T + 0.7 * (x @ a.T) @ b.T + bias
    assert (ours - truth).abs().max() < 2**-7 * truth.abs().max()
    exact = of(reference, weight)(x, a, b, bias)
    assert 0 < (ours - exact).abs().max() < 0.1 * exact.abs().max()


def test_lora_linear_in_fp8_has_the_gradients_of_the_weight_in_full(device: str) -> None:
    weight = a_weight((4, 64, 48, 4), "fp8", torch.float32, device)
    inputs = [one.requires_grad_() for one in tensors((20, 64, 48, 4), torch.float32, device)[:4]]
    upstream = torch.randn(20, 48, device=device)
    ours, others = (
        torch.autograd.grad(of(lora_linear, weight, path=path)(*inputs), inputs, upstream)
        for path in ("native", "dequantised")
    )
    assert all(torch.equal(one, other) for one, other in zip(ours, others, strict=True))


def test_a_path_that_cannot_be_had_is_refused_with_the_reason(device: str) -> None:
    x, a, b, *_ = tensors((4, 60, 48, 4), torch.float32, device)
    plain, nf4, odd = (a_weight((4, 60, 48, 4), form, torch.float32, device) for form in (None, "nf4", "fp8"))
    for weight, why in ((plain, "plain"), (nf4, "nf4"), (odd, "multiples of 16")):
        with pytest.raises(ValueError, match=f"native path cannot be had: the weight is .*{why}"):
            lora_linear(x, weight, a, b, scale=1.0, path="native")
    with pytest.raises(ValueError, match="Unknown path 'best'"):
        lora_linear(x, plain, a, b, scale=1.0, path="best")
    with pytest.raises(ValueError, match="Triton is ruled out"):
        lora_linear(x, plain, a, b, scale=1.0, path="fused", with_triton=False)
    with pytest.raises(ValueError, match="freeze it"):
        lora_linear(x, plain.clone().requires_grad_(), a, b, scale=1.0)
    for wrong in ((a[:, 1:], b), (a[1:], b), (a, b[1:])):
        with pytest.raises(ValueError, match=r"must be \[\.\.\., K\]"):
            lora_linear(x, plain, *wrong, scale=1.0)


@pytest.mark.parametrize("path", [None, "fused"])
def test_lora_linear_of_no_rows_and_of_rows_that_do_not_lie_together(device: str, path: str | None) -> None:
    shape = (6, 64, 33, 4)
    weight, (x, a, b, *_) = a_weight(shape, "nf4", torch.float32, device), tensors(shape, torch.float32, device)
    for given in (x[:0], x.T.contiguous().T, torch.stack([x, x], 1)[:, 1], x.view(2, 3, 64)):
        check(of(lora_linear, weight, path=path), of(reference, weight), given, a, b)


@pytest.mark.parametrize("path", PATHS[:3])
def test_lora_linear_gives_the_same_bits_again(device: str, path: str) -> None:
    weight = a_weight((40, 64, 40, 4), "nf4", torch.float32, device)
    inputs = [one.requires_grad_() for one in tensors((40, 64, 40, 4), torch.float32, device)[:4]]
    with poisoned():
        first, second = (
            torch.autograd.grad(of(lora_linear, weight, path=path)(*inputs).square().sum(), inputs) for _ in range(2)
        )
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_under_autocast_all_is_in_its_dtype_and_gradients_in_that_of_the_parameters(device: str) -> None:
    weight = a_weight((5, 64, 33, 4), "nf4", torch.float32, device)
    x, a, b, bias, _ = (one.requires_grad_() for one in tensors((5, 64, 33, 4), torch.float32, device))
    with torch.autocast(device, torch.bfloat16):
        y = lora_linear(x, weight, a, b, scale=0.7, bias=bias)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    expected = of(reference, weight)(*(one.detach().bfloat16() for one in (x, a, b, bias)))
    assert (y - expected).abs().max() <= 2**-6 * expected.abs().max()
    assert all(one.grad is not None and one.grad.dtype == torch.float32 for one in (x, a, b, bias))


def test_nothing_is_kept_for_gradients_that_nobody_wants(device: str) -> None:
    weight = a_weight((5, 64, 33, 4), "nf4", torch.float32, device)
    x, a, b, *_ = tensors((5, 64, 33, 4), torch.float32, device)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        lora_linear(x.requires_grad_(), weight, a, b, scale=1.0)
    assert not [one for one in kept if one.shape == x.shape], "x, and no gradient of A is wanted"


def test_the_fastest_path_is_asked_for_with_all_that_a_time_depends_on(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[dict[str, Any], list[str]]] = []

    def choose(question: str, shape: dict[str, Any], ways: dict[str, Callable[[], Tensor]], **options: Any) -> Any:
        asked.append((shape, list(ways)))
        first, *rest = (way() for way in ways.values())
        assert all(torch.allclose(first, one, atol=1e-4) for one in rest)
        return type("Choice", (), {"name": list(ways)[-1]})

    monkeypatch.setattr("runner.kernels.parts.frozen.choose", choose)
    for form in (None, "nf4"):
        weight, (x, a, b, *_) = (
            a_weight((5, 64, 32, 4), form, torch.float32, device),
            tensors((5, 64, 32, 4), torch.float32, device),
        )
        check(of(lora_linear, weight, with_triton=True), of(reference, weight), x, a, b)
    assert [ways for _, ways in asked] == [["dequantised", "epilogue"]] * 2 + [["dequantised", "epilogue", "fused"]] * 2
    common = {"rows": 8, "outputs": 32, "inputs": 64, "rank": 4, "dtype": "torch.float32"}
    assert asked[0][0] == {**common, "format": "plain", "transposed": 0}
    assert asked[3][0] == {**common, "format": "nf4", "transposed": 1}


def test_product_of_sizes_that_do_not_fit_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match="takes 32"):
        product(torch.ones(2, 16, device=device), torch.ones(16, 32, device=device))


def test_lora_linear_takes_plain_torch_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise AssertionError("a kernel was launched")

    monkeypatch.setattr("runner.kernels.parts.products.launch", refused)
    shape = (5, 64, 33, 4)
    weight, inputs = a_weight(shape, "nf4", torch.float32, "cpu"), tensors(shape, torch.float32, "cpu")
    check(of(lora_linear, weight), of(reference, weight), *inputs)
