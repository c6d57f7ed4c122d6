"""Experts through our kernels against transformers' own loop over them, alone and in the models of all families."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, grouped_mm_experts_forward, use_experts_implementation

from runner.kernels.experts import experts_forward, register
from runner.kernels.families import known
from runner.kernels.forwards import experts as adapter
from runner.kernels.places import Request, UnfitError
from tests.kernels.criterion import check
from tests.kernels.patches.training import batch, losses, must_agree
from tests.registry import tiny_llm

NAMES = ["mixtral", "qwen3-moe", "deepseek-v2", "deepseek-v3", "gpt-oss"]


def model(name: str, implementation: str, device: str = "cpu") -> Any:
    """The tiny model of a family, whose experts are all of a size that shows."""
    made = tiny_llm.model(name).train().to(device)
    with torch.no_grad():
        for path, x in made.named_parameters():
            if ".experts." in path:
                x.normal_(std=0.3)
    register()
    made.set_experts_implementation(implementation)
    return made


def experts_of(made: nn.Module) -> Any:
    return next(part for part in made.modules() if type(part).__name__.endswith("Experts"))


def routed(experts: Any, tokens: int, each: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, their experts and weights; half of the experts get none."""
    width = experts.down_proj.shape[-1 if experts.is_transposed else 1]
    device = experts.down_proj.device
    indices = torch.rand(tokens, experts.num_experts // 2, device=device).topk(each).indices
    return torch.randn(tokens, width, device=device), indices, torch.rand(tokens, each, device=device)


def as_function(experts: Any, forward: Callable[..., Tensor], indices: Tensor) -> tuple[Callable[..., Tensor], Any]:
    """`forward` as a function of tokens, weights and parameters, and the parameters."""
    names, values = zip(*experts.named_parameters(), strict=True)

    class Shell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = experts

        def forward(self, x: Tensor, weights: Tensor) -> Tensor:
            return forward(self.experts, x, indices, weights)

    def function(x: Tensor, weights: Tensor, *parameters: Tensor) -> Tensor:
        given = {f"experts.{name}": value for name, value in zip(names, parameters, strict=True)}
        y: Tensor = functional_call(Shell(), given, (x, weights))
        return y

    return function, [value.detach() for value in values]


def check_experts(experts: Any, indices: Tensor, *tensors: Tensor, dtype: torch.dtype) -> None:
    """Ours by Triton against the class's own loop."""
    experts.config = copy.copy(experts.config)
    experts.config._experts_implementation = "eager"
    eager, parameters = as_function(experts, type(experts).forward, indices)
    ours, _ = as_function(experts, partial(experts_forward, with_triton=True), indices)
    check(ours, eager, *(x.to(dtype) for x in (*tensors, *parameters)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["mixtral", "gpt-oss"])
def test_experts_equal_the_loop(name: str, dtype: torch.dtype, device: str) -> None:
    """The two layouts: matrices [E, N, K] without biases, and [E, K, N] with, and a gate of its own."""
    experts = experts_of(model(name, "eager", device))
    x, indices, weights = routed(experts, 7)
    check_experts(experts, indices, x, weights, dtype=dtype)


def test_experts_that_are_not_here_cost_and_give_nothing(device: str) -> None:
    experts = experts_of(model("mixtral", "eager", device))
    x, indices, weights = routed(experts, 5)
    indices[1], indices[3, 0] = experts.num_experts, experts.num_experts
    check_experts(experts, indices, x, weights, dtype=torch.float32)


def test_experts_without_a_gate(device: str) -> None:
    experts = Plain(tiny_llm.config("mixtral")).to(device)
    indices = torch.tensor([[0, 1], [1, 0], [1, 0]], device=device)
    x, weights = torch.randn(3, 6, device=device), torch.rand(3, 2, device=device)
    ours, parameters = as_function(experts, partial(experts_forward, with_triton=True), indices)
    loop, _ = as_function(experts, Plain.loop, indices)
    check(ours, loop, x, weights, *parameters)


@use_experts_implementation(has_gate=False)
class Plain(nn.Module):
    def __init__(self, _config: Any) -> None:
        super().__init__()
        self.num_experts, self.act_fn = 2, nn.ReLU()
        self.up_proj, self.down_proj = nn.Parameter(torch.randn(2, 9, 6)), nn.Parameter(torch.randn(2, 6, 9))

    def forward(self) -> None:
        """What the decorator puts its choice over."""

    def loop(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        linear = nn.functional.linear
        said = [linear(self.act_fn(linear(x, up)), down) for up, down in zip(self.up_proj, self.down_proj, strict=True)]
        shares = [torch.where(indices == e, weights, 0).sum(1, keepdim=True) for e in range(2)]
        return shares[0] * said[0] + shares[1] * said[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_with_our_experts_trains_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = model(name, "runner"), model(name, "eager")
    monkeypatch.setitem(ALL_EXPERTS_FUNCTIONS._global_mapping, "runner", partial(experts_forward, with_triton=False))
    must_agree(ours, theirs, batch(name, seed=1))
    assert losses(ours, name, steps=10) == pytest.approx(losses(theirs, name, steps=10), rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_by_triton_agrees(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = model(name, "runner", device), model(name, "eager", device)
    monkeypatch.setitem(ALL_EXPERTS_FUNCTIONS._global_mapping, "runner", partial(experts_forward, with_triton=True))
    must_agree(ours, theirs, batch(name, 1, device), tolerance=1e-4)


def test_autocast_is_what_it_is_for_linear_layers(device: str) -> None:
    experts = experts_of(model("mixtral", "eager", device))
    given = routed(experts, 7)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16):
        plain, triton = experts(*given), experts_forward(experts, *given, with_triton=True)
    with torch.no_grad():
        exact = experts(*given)
    assert plain.dtype == triton.dtype == torch.float32
    assert (triton - plain).abs().max() <= 0.02 * exact.abs().max()
    assert (triton - exact).abs().max() >= 1e-4 * exact.abs().max()


def test_frozen_experts_keep_no_tokens(device: str) -> None:
    """Under adapters of other layers, up and gate would keep the tokens for a gradient that nobody wants."""
    experts = experts_of(model("qwen3-moe", "eager", device)).requires_grad_(False)
    x, indices, weights = routed(experts, 7)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = experts_forward(experts, x.requires_grad_(), indices, weights, with_triton=True)
    assert not any(tensor is x or tensor.data_ptr() == x.data_ptr() for tensor in kept)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert dx.abs().sum() > 0


def test_on_a_cpu_transformers_own_takes_over() -> None:
    made = model("qwen3-moe", "runner")
    experts = experts_of(made)
    given = routed(experts, 7)
    assert torch.equal(experts(*given), grouped_mm_experts_forward(experts, *given))


def test_the_adapter_takes_experts_of_the_registry_and_says_what_others_lack() -> None:
    request = Request(patch="experts", model=nn.Module(), family=known()["mixtral"], with_triton=False, shared={})
    experts = experts_of(model("mixtral", "eager"))
    (edit,) = adapter.grouped(experts, request)
    given = routed(experts, 5)
    assert edit.module is experts
    assert torch.allclose(edit.value(*given), experts(*given), atol=1e-5)
    with pytest.raises(UnfitError, match="num_experts"):
        adapter.grouped(nn.Linear(3, 3), request)
    experts.down_proj.data = experts.down_proj.data.half()
    with pytest.raises(UnfitError, match=r"torch\.float16, torch\.float32"):
        adapter.grouped(experts, request)


def test_the_adapter_refuses_experts_that_compute_something_else() -> None:
    class Doubled(type(experts_of(model("mixtral", "eager")))):  # type: ignore[misc]
        def forward(self, *args: Any) -> Tensor:
            y: Tensor = super().forward(*args)
            return 2 * y

    request = Request(patch="experts", model=nn.Module(), family=known()["mixtral"], with_triton=False, shared={})
    made = Doubled(tiny_llm.config("mixtral", experts_implementation="eager"))
    for x in made.parameters():
        nn.init.normal_(x)
    with pytest.raises(UnfitError, match="computes something else"):
        adapter.grouped(made, request)
