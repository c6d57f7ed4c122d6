"""LoRA on quantised weights on a GPU: PEFT's gradients, and the most memory of a step. `pytest -m gpu tests/gpu`."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from runner.kernels.quantised import QuantisedLinear
from tests.kernels.test_lora import batch, gradients, pair

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted"),
]


def test_a_step_takes_less_memory_than_peft_on_dequantised_weights() -> None:
    peaks, norms = [], []
    data = {name: value.cuda() for name, value in batch().items()}
    for model in pair(width=1024, dtype=torch.bfloat16):
        torch.cuda.empty_cache()
        start = torch.cuda.memory_allocated()
        there: Any = model.cuda()
        there(**data).loss.backward()  # measures the paths, which takes memory of its own
        there.zero_grad()
        torch.cuda.reset_peak_memory_stats()
        there(**data).loss.backward()
        peaks.append(torch.cuda.max_memory_allocated() - start)
        norms.append(sum(float(gradient.float().norm()) for gradient in gradients(there).values()))
        full = [2 * one.in_features * one.out_features for one in there.modules() if isinstance(one, QuantisedLinear)]
        model.cpu()
        if full:
            weights = sum(full), max(full)
    assert norms[0] == pytest.approx(norms[1], rel=0.02)
    # nf4 holds 4.13 of 16 bits, and one product at a time a weight in full
    assert peaks[0] < peaks[1] - 0.7 * weights[0] + 2 * weights[1]
