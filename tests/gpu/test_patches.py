"""The patches of every family and the probe on a GPU. `pytest -m gpu tests/gpu/test_patches.py`."""

from __future__ import annotations

import os

import pytest
import torch

from runner.kernels.patching import apply, patched
from runner.kernels.probe import probe
from tests.kernels.patches.test_families import (  # noqa: F401 (collected here)
    test_with_triton_a_step_agrees,
    test_with_triton_training_agrees,
)
from tests.kernels.patches.training import NAMES, batch, model, must_agree, twins, wanted

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted"),
]


@pytest.fixture
def device() -> str:
    return "cuda"


@pytest.mark.parametrize("name", NAMES)
def test_patches_go_in_by_themselves_and_agree(name: str) -> None:
    ours, theirs = twins(name, "cuda")
    with patched(ours, wanted(name, "preferred")) as ledger:
        assert any(line.applied for line in ledger.lines)
        must_agree(ours, theirs, batch(name, 1, "cuda"), tolerance=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
def test_the_probe_lets_right_patches_be(name: str, dtype: torch.dtype) -> None:
    made = model(name, "cuda").to(dtype)
    applied = apply(made, wanted(name))
    probe(made, applied, batch(name, 1, "cuda"))
    for line in applied.ledger.lines:
        assert line.applied
        assert line.saving is not None
        assert "MiB" in line.saving
