"""Inputs of checkpointed layers that wait in host memory: the same gradients from less of the GPU's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from runner.kernels.checkpointing import checkpointed
from tests.kernels.test_checkpointing import gradients, loss_of, same

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
LAYERS, TOKENS, FEATURES = 12, 8192, 1024
INPUT = TOKENS * FEATURES * 2  # bytes: 16 MiB in bf16


@pytest.fixture(autouse=True)
def _in_a_fixed_order(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Attention and the embedding would else sum their gradients in any order."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=64, hidden_size=FEATURES, intermediate_size=1024, num_hidden_layers=LAYERS, num_attention_heads=8,
        num_key_value_heads=8, attention_dropout=0.1, use_cache=False, max_position_embeddings=TOKENS,
    )  # fmt: skip
    return LlamaForCausalLM(config).to("cuda", torch.bfloat16).train()


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(64, (1, TOKENS), device="cuda")


def held(model: LlamaForCausalLM, tokens: torch.Tensor) -> int:
    """Bytes that a forward leaves to backward."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    loss = loss_of(model, tokens)
    torch.cuda.synchronize()
    assert loss.requires_grad
    return torch.cuda.memory_allocated() - before


def test_gradients_are_the_same_bits_and_the_peak_is_lower(model: LlamaForCausalLM, tokens: torch.Tensor) -> None:
    found, peaks, left = [], [], []
    for offload in (False, True):
        with checkpointed(model, offload=offload) as done:
            assert done.offload is offload
            for _ in range(2):  # the second time with host memory that has been used before
                gradients(model, tokens)
            model.zero_grad()
            left.append(held(model, tokens))
            torch.cuda.reset_peak_memory_stats()
            found.append(gradients(model, tokens))
            peaks.append(torch.cuda.max_memory_allocated())
    assert same(*found)
    assert left[0] - left[1] >= (LAYERS - 2) * INPUT
    assert peaks[0] - peaks[1] >= (LAYERS - 4) * INPUT  # two are on the device at a time, and the last layer's


def test_a_backward_broken_off_and_two_forwards(model: LlamaForCausalLM, tokens: torch.Tensor) -> None:
    usual = gradients(model, tokens)

    def stop(_: torch.Tensor) -> None:
        raise KeyboardInterrupt

    with checkpointed(model, offload=True):
        hook = model.model.layers[3].mlp.down_proj.weight.register_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            loss_of(model, tokens).backward()
        hook.remove()
        assert same(gradients(model, tokens), usual)
        torch.manual_seed(7)
        model.zero_grad()
        first, second = loss_of(model, tokens), loss_of(model, tokens)
        first.backward()
        assert same({name: p.grad for name, p in model.named_parameters()}, usual)
        second.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
