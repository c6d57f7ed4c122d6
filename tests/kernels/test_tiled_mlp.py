"""MLPs in tiles: the same outputs and gradients from fewer bytes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from runner.kernels.checkpointing import checkpointed
from runner.kernels.tiled_mlp import in_tiles, tiled
from tests.kernels.criterion import error, floor


class Mlp(nn.Module):
    def __init__(self, *, dropout: float = 0.0, bias: bool = False, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(12, 40, bias=bias, dtype=dtype), nn.Linear(40, 12, bias=bias, dtype=dtype)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.dropout(functional.silu(self.up(x))))
        return y


def values(mlp: nn.Module, x: Tensor, dy: Tensor, **options: Any) -> list[Tensor]:
    """Output, gradient of the input, gradients of the parameters."""
    x = x.detach().requires_grad_()
    y = in_tiles(mlp, x, **options)
    return [y.detach(), *torch.autograd.grad(y, [x, *mlp.parameters()], dy.to(y.dtype))]


@pytest.mark.parametrize("tile_rows", [1, 5, 13, 26, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_are_at_least_as_right_as_without_tiles(dtype: torch.dtype, tile_rows: int) -> None:
    mlp, x, dy = Mlp(bias=True, dtype=dtype), torch.randn(2, 13, 12, dtype=dtype), torch.randn(2, 13, 12, dtype=dtype)
    truth = values(copy.deepcopy(mlp).double(), x.double(), dy.double())
    usual, ours = values(mlp, x, dy), values(mlp, x, dy, tile_rows=tile_rows)
    for one, other, true in zip(ours, usual, truth, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == true.shape
        assert error(one, true) <= 2 * error(other, true) + floor(dtype)


def test_sums_over_many_tiles_do_not_lose_small_parts() -> None:
    """bf16 has 8 bits: a sum of 1,000 equal parts kept in it stops growing at 256."""
    mlp, x = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16), torch.ones(1000, 1, dtype=torch.bfloat16)
    assert values(mlp, x, torch.ones_like(x), tile_rows=1)[2].item() == 1000


def test_a_frozen_mlp_and_an_input_without_gradient() -> None:
    mlp, x = Mlp().requires_grad_(False), torch.randn(7, 12, requires_grad=True)
    usual = torch.autograd.grad(mlp(x).sum(), x)[0]
    torch.testing.assert_close(torch.autograd.grad(in_tiles(mlp, x, tile_rows=3).sum(), x)[0], usual)
    mlp.up.requires_grad_()
    expected = torch.autograd.grad(mlp(x.detach()).sum(), mlp.up.weight)[0]
    found = torch.autograd.grad(in_tiles(mlp, x.detach(), tile_rows=3).sum(), mlp.up.weight)[0]
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(in_tiles(mlp, x, tile_rows=3), mlp(x))


def test_dropout_is_that_of_forward() -> None:
    """With weights of ones, the gradient of the input says which features lived."""
    mlp, x = nn.Dropout(0.5), torch.ones(50, 4, requires_grad=True)
    y = in_tiles(mlp, x, tile_rows=7)
    torch.randn(3)
    before = torch.get_rng_state()
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], y)
    assert torch.equal(torch.get_rng_state(), before)
    assert 0 < (y == 0).sum() < y.numel()


def test_autocast_is_that_of_forward() -> None:
    mlp, x, dy = Mlp(), torch.randn(9, 12), torch.randn(9, 12)
    with torch.autocast("cpu", torch.bfloat16):
        usual = values(mlp, x, dy)
        leaf = x.detach().requires_grad_()
        y = in_tiles(mlp, leaf, tile_rows=4)
    ours = [y.detach(), *torch.autograd.grad(y, [leaf, *mlp.parameters()], dy.bfloat16())]  # outside
    assert y.dtype == torch.bfloat16
    for one, other in zip(ours, usual, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, atol=0.03, rtol=0.03)


def kept_bytes(y_of: Any) -> int:
    held: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y = y_of()
    assert y.requires_grad
    return sum(held.values())


def test_only_the_input_is_kept() -> None:
    mlp, x = Mlp(), torch.randn(100, 12, requires_grad=True)
    weights = sum(parameter.nbytes for parameter in mlp.parameters())
    assert kept_bytes(lambda: in_tiles(mlp, x, tile_rows=10)) == weights + x.nbytes
    assert kept_bytes(lambda: mlp(x)) == weights + x.nbytes + 2 * 100 * 40 * 4  # before and after silu


def test_what_backward_holds_at_a_time_is_a_tile() -> None:
    mlp, x, largest = Mlp(), torch.randn(100, 12, requires_grad=True), []
    mlp.up.register_forward_hook(lambda _, __, y: largest.append(y.shape[0]))
    in_tiles(mlp, x, tile_rows=10).sum().backward()
    assert largest == [10] * 20


def test_hooks_of_gradients_run_once() -> None:
    mlp, seen = Mlp(), []
    mlp.up.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.shape))
    in_tiles(mlp, torch.randn(10, 12), tile_rows=2).sum().backward()
    assert len(seen) == 1


def llama() -> LlamaForCausalLM:
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, use_cache=False
    )
    return LlamaForCausalLM(config).train()


def mlps(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if name.endswith("mlp")}


def gradients(model: nn.Module) -> list[Tensor]:
    tokens = torch.arange(34).view(2, 17)
    model.zero_grad()
    model(input_ids=tokens, labels=tokens).loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("adapters", [False, True])
def test_a_model_and_its_adapters_and_back(adapters: bool) -> None:
    model = llama()
    if adapters:
        peft = pytest.importorskip("peft")
        model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["gate_proj", "down_proj"]))
        for name, parameter in model.named_parameters():
            nn.init.normal_(parameter) if "lora_B" in name else None
    other, usual = copy.deepcopy(model), gradients(model)
    with tiled(mlps(model), tile_rows=5) as done:
        assert done.mlps == tuple(mlps(model))
        calls: list[int] = []
        hook = next(iter(mlps(model).values())).gate_proj.register_forward_hook(lambda *_: calls.append(1))
        torch.testing.assert_close(gradients(model), usual)
        hook.remove()
        assert len(calls) == 2 * 7  # 34 rows in tiles of 5, twice
        assert all("forward" not in vars(module) for module in mlps(other).values())
    assert all("forward" not in vars(module) for module in mlps(model).values())
    assert all(torch.equal(one, other) for one, other in zip(gradients(model), usual, strict=True))


def test_tiles_within_checkpointed_layers() -> None:
    model = llama()
    usual = gradients(model)
    with tiled(mlps(model), tile_rows=5), checkpointed(model, offload=False):
        torch.testing.assert_close(gradients(model), usual)


def test_undo_brings_back_a_forward_put_there_before() -> None:
    mlp = Mlp()
    mlp.forward = put = lambda x: 2 * x  # type: ignore[method-assign, assignment]
    with tiled({"mlp": mlp}, tile_rows=2):
        assert torch.equal(mlp(torch.ones(5, 12)), 2 * torch.ones(5, 12))
    assert mlp.forward is put


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(ValueError, match="0 MLPs"):
        tiled({})
    with pytest.raises(ValueError, match="tile_rows=0"):
        tiled({"mlp": Mlp()}, tile_rows=0)
    pair = nn.Identity()
    pair.forward = lambda x: (x, x)  # type: ignore[assignment, method-assign]
    with pytest.raises(TypeError, match="got tuple"):
        in_tiles(pair, torch.ones(4, 3), tile_rows=2)
    mlp = Mlp()
    mlp.up.weight.ds_id = 1
    with pytest.raises(RuntimeError, match="ZeRO 3"):
        in_tiles(mlp, torch.ones(4, 12), tile_rows=2)
