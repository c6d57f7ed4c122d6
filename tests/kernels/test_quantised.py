"""Quantised weights: their sizes, what is lost, the layers that hold them, their files. Without Triton."""

from __future__ import annotations

import copy
import gc
import json
import math
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from runner.kernels import formats
from runner.kernels.formats import nf4
from runner.kernels.quantised import (
    QuantisedLinear,
    QuantisedWeight,
    load_quantised,
    quantise,
    quantise_linears,
    reference,
    save_quantised,
    size,
)

FORMATS = formats.names()
SHAPES = [(1, 1), (3, 63), (63, 64), (5, 1000), (129, 1280)]


def data_bytes(path: Path) -> int:
    """Bytes of a file of safetensors beside its header, whose length is its first eight bytes."""
    with path.open("rb") as file:
        (header,) = struct.unpack("<Q", file.read(8))
    return path.stat().st_size - 8 - int(header)


def steps(weight: QuantisedWeight) -> Tensor:
    """The distance [N, K] between neighbouring codes where that is the same for all codes."""
    scales, (rows, columns) = weight.parts["scales"].float(), weight.shape
    if weight.format == "int8":
        return scales[:, None].expand(rows, columns)
    return scales.repeat_interleave(128, 1)[:, :columns]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 70)
        self.up, self.down, self.gate = nn.Linear(70, 130), nn.Linear(130, 70, bias=False), nn.Linear(70, 2)
        self.lm_head = nn.Linear(70, 11, bias=False)
        self.lm_head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        y: Tensor = self.lm_head(x + self.down(self.up(x).relu()) * self.gate(x)[..., :1])
        return y


def test_formats_are_the_files_of_their_folder() -> None:
    assert FORMATS == ["fp8", "fp8_block", "int4", "int8", "nf4"]
    with pytest.raises(ValueError, match=r"Unknown format 'q4' of quantised weights. Formats: fp8, fp8_block"):
        quantise(torch.ones(2, 2), "q4")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_sizes_are_as_computed(name: str, shape: tuple[int, int], tmp_path: Path) -> None:
    weight = quantise(torch.randn(shape), name)
    save_file(dict(weight.parts), tmp_path / "w.safetensors")
    assert size(name, shape) == weight.nbytes == data_bytes(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "name, bits", [("nf4", 4 + 8 / 64 + 32 / 16384), ("int4", 4 + 24 / 128), ("int8", 8), ("fp8_block", 8 + 32 / 16384)]
)
def test_sizes_of_large_weights(name: str, bits: float) -> None:
    rows = 32 * 4096 if name == "int8" else 0
    extra = 32 if name == "nf4" else 0  # its offset
    assert size(name, (4096, 14336)) * 8 == 4096 * 14336 * bits + rows + extra


def test_nf4_has_the_levels_of_its_paper() -> None:
    """Eight quantiles of a normal distribution below 0, nine from 0 on, as far from its ends as half a level."""
    end = 1 - (1 / 32 + 1 / 30) / 2
    above, below = (torch.linspace(end, 0.5, n, dtype=torch.float64)[:-1] for n in (9, 8))
    quantiles = torch.cat([torch.special.ndtri(above), -torch.special.ndtri(below), torch.zeros(1)]).sort().values
    found = torch.tensor(nf4.LEVELS, dtype=torch.float64)
    assert torch.allclose(quantiles / quantiles.max(), found, rtol=0, atol=2e-7)


def test_nf4_keeps_the_nearest_level_and_the_nearest_maximum() -> None:
    x = torch.randn(40, 640)
    weight, blocks = quantise(x, "nf4"), x.view(40, 10, 64)
    absmax = blocks.abs().amax(2, keepdim=True)
    codes = weight.parts["codes"]
    chosen = torch.stack([codes >> 4, codes & 15], 2).view(40, 10, 64).int()
    levels = torch.tensor(nf4.LEVELS)
    best = (blocks[..., None] / absmax[..., None] - levels).abs().amin(3)
    assert torch.allclose((blocks / absmax - levels[chosen]).abs(), best, rtol=0, atol=1e-6)
    nested = (absmax.flatten() - absmax.mean()).split(256)
    for piece, scale, found in zip(
        nested, weight.parts["absmax_scales"], weight.parts["absmax_codes"].flatten().split(256), strict=True
    ):
        table = nf4._dynamic() * scale
        assert scale == piece.abs().max()
        nearest = (piece[:, None] - table).abs().amin(1)
        assert torch.allclose((piece - table[found.int()]).abs(), nearest, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nf4_loses_half_a_gap_between_levels_at_most(shape: tuple[int, int]) -> None:
    """The widest gap is 0.304 of the maximum, which itself is off by half a gap of the dynamic map, 0.0070 of s."""
    x = torch.randn(shape)
    weight = quantise(x, "nf4")
    absmax = nn.functional.pad(x, (0, -shape[1] % 64)).view(shape[0], -1, 64).abs().amax(2)
    gap, off = torch.tensor(nf4.LEVELS).diff().max() / 2, nf4._dynamic().diff().max() / 2
    limit = (absmax * gap + weight.parts["absmax_scales"].max() * off).repeat_interleave(64, 1)[:, : shape[1]]
    assert ((x - reference(weight)).abs() <= limit + 1e-6).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["int4", "int8"])
def test_even_codes_lose_half_a_step_at_most(name: str, shape: tuple[int, int]) -> None:
    """Of int4 at the ends a whole one: its zero is rounded too, and so is its scale, to 1/256."""
    x = torch.randn(shape)
    weight = quantise(x, name)
    lost, step = (x - reference(weight)).abs() / steps(weight), 1.0 + 15 / 256 if name == "int4" else 0.5
    assert (lost <= step + 1e-3).all()
    if shape[0] * shape[1] > 1000:
        assert lost.square().mean().sqrt().item() == pytest.approx(1 / math.sqrt(12), rel=0.05)  # evenly spread


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["fp8", "fp8_block"])
def test_e4m3_loses_a_sixteenth_at_most(name: str, shape: tuple[int, int]) -> None:
    """Half of the last of three bits of mantissa; below 2^-6 half of a fixed step of 2^-9, in units of the scale."""
    x = torch.randn(shape)
    weight = quantise(x, name)
    lost = (x - reference(weight)).abs()
    assert (lost <= torch.maximum(x.abs() / 16, weight.parts["scales"].max() * 2**-10) * 1.0001).all()


@pytest.mark.parametrize(
    "name, most", [("nf4", 0.0925), ("int4", 0.102), ("int8", 0.0098), ("fp8", 0.0266), ("fp8_block", 0.0269)]
)
def test_what_normal_weights_lose(name: str, most: float) -> None:
    """Relative errors. int8: the largest of 4096 is 3.8 deviations, a step 3.8 / 127, its noise 12^-1/2 of that."""
    x = torch.randn(256, 4096)
    assert 0.8 * most < ((reference(quantise(x, name)) - x).norm() / x.norm()).item() < most


@pytest.mark.parametrize("name", FORMATS)
def test_zero_stays_zero_and_extremes_are_held(name: str) -> None:
    x = torch.zeros(130, 260)
    assert torch.equal(reference(quantise(x, name)), x)
    x[0], x[129, 200:] = torch.randn(260), 1e-3
    x[0, ::2] = 0.0
    back = reference(quantise(x, name))
    assert back.isfinite().all()
    assert (back[0, ::2] == 0).all()
    assert (back[1:129] == 0).all()
    for factor in (2.0**-100, 2.0**100):
        assert torch.equal(reference(quantise(x * factor, name)) / factor, back)


@pytest.mark.parametrize("name", FORMATS)
def test_pieces_make_no_difference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(300, 100)
    whole = quantise(x, name)
    monkeypatch.setattr("runner.kernels.formats._shared.PIECE", 128 * 100)
    for part, same in zip(quantise(x, name).parts.values(), whole.parts.values(), strict=True):
        assert torch.equal(part.view(torch.uint8), same.view(torch.uint8))


def test_what_is_no_weight_is_refused() -> None:
    for wrong in (torch.ones(3), torch.ones(0, 4), torch.ones(2, 2, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"Only a matrix of floats is quantised, got torch\."):
            quantise(wrong, "int8")
    with pytest.raises(ValueError, match="NaN or infinite"):
        quantise(torch.tensor([[1.0, math.nan]]), "fp8")
    weight = quantise(torch.ones(2, 64), "nf4")
    with pytest.raises(ValueError, match="Parts of 'nf4' for \\(3, 64\\) must be"):
        QuantisedWeight(format="nf4", shape=(3, 64), dtype=torch.float32, parts=weight.parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_a_layer_is_the_linear_one_of_its_dequantised_weight(name: str, dtype: torch.dtype) -> None:
    linear = nn.Linear(70, 30, dtype=dtype)
    layer = QuantisedLinear.from_linear(linear, name)
    assert layer.weight.dtype == dtype
    linear.weight = nn.Parameter(layer.weight.dequantise())
    x, dy = torch.randn(2, 3, 70, dtype=dtype, requires_grad=True), torch.randn(2, 3, 30, dtype=dtype)
    ours = torch.autograd.grad(layer(x), [x, layer.bias], dy)
    theirs = torch.autograd.grad(linear(x), [x, linear.bias], dy)
    assert torch.equal(layer(x), linear(x))
    assert torch.equal(ours[0], theirs[0])
    assert torch.allclose(ours[1], theirs[1], rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)
    assert [name for name, _ in layer.named_parameters()] == ["bias"]


def test_a_layer_keeps_no_dequantised_weight_for_backward() -> None:
    layer = QuantisedLinear.from_linear(nn.Linear(70, 30), "nf4")
    x = torch.randn(2, 70, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda saved: pytest.fail(f"kept {saved.shape}"), lambda saved: saved
    ):
        y = layer(x)
    gc.collect()
    alive = [found for found in gc.get_objects() if issubclass(type(found), Tensor) and found.shape == (30, 70)]
    assert not alive
    y.sum().backward()
    assert x.grad is not None


def test_a_layer_computes_in_the_dtype_of_its_input_and_in_autocast() -> None:
    layer = QuantisedLinear.from_linear(nn.Linear(70, 30, dtype=torch.bfloat16), "int8")
    assert layer(torch.randn(4, 70)).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = torch.randn(70, requires_grad=True)
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert torch.autograd.grad(y.sum(), x)[0].dtype == torch.float32


@pytest.mark.parametrize("name", FORMATS)
def test_casting_a_layer_leaves_its_parts(name: str) -> None:
    layer = QuantisedLinear.from_linear(nn.Linear(70, 30), name)
    before = {key: part.clone() for key, part in layer.weight.parts.items()}
    layer.to(torch.bfloat16)
    assert layer.weight.dtype == layer.bias.dtype == torch.bfloat16
    for key, part in layer.weight.parts.items():
        assert part.dtype == before[key].dtype
        assert torch.equal(part.view(torch.uint8), before[key].view(torch.uint8))
    assert layer.to("meta").weight.device.type == "meta"
    assert f"format={name!r}" in repr(layer)


@pytest.mark.parametrize("name", FORMATS)
def test_a_state_dict_has_the_dtypes_of_the_format_and_is_loaded_with_no_others(name: str) -> None:
    layer = QuantisedLinear.from_linear(nn.Linear(70, 30), name)
    state = layer.state_dict()
    layout = formats.load(name).layout(30, 70)
    assert {key: (state[key].dtype, tuple(state[key].shape)) for key in layout} == layout
    assert {buffer.dtype for buffer in layer.buffers()} == {torch.uint8}
    other = QuantisedLinear.empty(name, (30, 70), dtype=torch.float32, bias=nn.Parameter(torch.zeros(30)))
    other.load_state_dict(state)
    assert torch.equal(other.weight.dequantise(), layer.weight.dequantise())
    with pytest.raises(RuntimeError, match=r"scales must be torch\.(float32|bfloat16), got torch.float16: it was cast"):
        other.load_state_dict({key: part.half() if "scales" in key else part for key, part in state.items()})


def test_the_weight_of_a_layer_is_the_one_that_its_buffers_are_now() -> None:
    layer, other = (QuantisedLinear.from_linear(nn.Linear(70, 30), "nf4") for _ in range(2))
    first = layer.weight
    assert layer.weight is first
    twin = copy.deepcopy(layer)
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer.weight.dequantise(), other.weight.dequantise())
    twin.load_state_dict(other.state_dict(), assign=True)
    assert torch.equal(twin.weight.dequantise(), other.weight.dequantise())
    twin.codes = torch.full_like(twin.codes, 0x77)
    assert not twin.weight.dequantise().any()
    assert layer.weight.dequantise().any()
    assert layer.to(torch.bfloat16).weight.dequantise().dtype == torch.bfloat16


def test_linear_layers_of_a_model_but_heads_routers_and_shared_ones() -> None:
    model = Model()
    model.eval()
    assert quantise_linears(model, "int8", skip=()) == ["up", "down", "gate"]
    assert not model.up.training
    model = Model()
    assert quantise_linears(model, "nf4") == ["up", "down"]
    assert type(model.gate) is type(model.lm_head) is nn.Linear
    with pytest.raises(ValueError, match="No linear layer of Model is left to quantise; skipped are"):
        quantise_linears(model, "nf4")


@pytest.mark.parametrize("name", FORMATS)
def test_a_model_comes_back_from_its_file_bit_for_bit(name: str, tmp_path: Path) -> None:
    model, path, tokens = Model().bfloat16(), tmp_path / "model.safetensors", torch.arange(11)[None]
    quantise_linears(model, name)
    save_quantised(model, path)
    other = Model().bfloat16()
    load_quantised(other, path)
    assert list(other.state_dict()) == list(model.state_dict())
    for one, same in zip(other.state_dict().values(), model.state_dict().values(), strict=True):
        assert one.dtype == same.dtype
        assert torch.equal(one.view(torch.uint8), same.view(torch.uint8))
    assert torch.equal(other(tokens), model(tokens))
    rest = 2 * (11 * 70 + 130 + 70 * 2 + 2)
    assert data_bytes(path) == size(name, (130, 70)) + size(name, (70, 130)) + rest


def test_names_in_a_file_stay() -> None:
    """They are published: a change breaks the files that people have."""
    names = {name: ["up.bias", *(f"up.{part}" for part in formats.load(name).layout(130, 70))] for name in FORMATS}
    assert names == {
        "fp8": ["up.bias", "up.codes", "up.scales"],
        "fp8_block": ["up.bias", "up.codes", "up.scales"],
        "int4": ["up.bias", "up.codes", "up.scales", "up.zeros"],
        "int8": ["up.bias", "up.codes", "up.scales"],
        "nf4": ["up.bias", "up.codes", "up.absmax_codes", "up.absmax_scales", "up.absmax_offset"],
    }
    for name in FORMATS:
        model = Model()
        quantise_linears(model, name)
        assert [key for key in model.state_dict() if key.startswith("up.")] == names[name]


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"x": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"model.safetensors' does not say how it is quantised"):
        load_quantised(Model(), path)
    save_file({"x": torch.ones(1)}, path, {"quantised": json.dumps({"upp": SAID | {"shape": [1, 2]}})})
    with pytest.raises(ValueError, match=r"has a linear layer 'upp' of \(1, 2\); the model has None there"):
        load_quantised(Model(), path)


SAID = {"format": "nf4", "shape": [130, 70], "dtype": "float32"}


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        None,
        "nf4",
        {},
        {key: SAID[key] for key in ("format", "shape")},
        SAID | {"format": ["nf4"]},
        SAID | {"format": "q4"},
        SAID | {"shape": []},
        SAID | {"shape": 130},
        SAID | {"shape": ["130", 70]},
        SAID | {"dtype": "load"},
        SAID | {"dtype": "int64"},
        SAID | {"dtype": None},
    ],
    ids=str,
)
def test_what_makes_no_sense_of_a_layer_is_named(wrong: object, tmp_path: Path) -> None:
    path, model = tmp_path / "model.safetensors", Model()
    save_file({"x": torch.ones(1)}, path, {"quantised": json.dumps({"up": wrong})})
    with pytest.raises(
        ValueError, match=r"model.safetensors' must say of its layer 'up' format \(fp8, .* float64\), got"
    ):
        load_quantised(model, path)
    assert type(model.up) is nn.Linear


@pytest.mark.parametrize("text", ["", "[]", "1", '["up"]', "[" * 100_000], ids=lambda text: text[:6])
def test_metadata_that_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"x": torch.ones(1)}, path, {"quantised": text})
    with pytest.raises(
        ValueError, match=r"model.safetensors' (must name its quantised layers in a|says how .* no JSON)"
    ):
        load_quantised(Model(), path)


def test_a_model_without_memory_cannot_be_filled(tmp_path: Path) -> None:
    model, path = Model(), tmp_path / "model.safetensors"
    quantise_linears(model, "nf4")
    save_quantised(model, path)
    with torch.device("meta"):
        other = Model()
    with pytest.raises(ValueError, match=r"'embed.weight' lies on the meta device and cannot be filled"):
        load_quantised(other, path)


def test_a_model_that_was_used_is_pickled_by_torch(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(70, 130), nn.Linear(130, 3)), torch.randn(2, 70)
    quantise_linears(model, "nf4")
    y = model(x)
    torch.save(model, tmp_path / "model.pt")
    assert torch.equal(torch.load(tmp_path / "model.pt", weights_only=False)(x), y)
