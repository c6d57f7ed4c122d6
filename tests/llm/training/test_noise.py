"""Noise on embeddings: as large as a token's own document wants, in packed rows too, and only while training."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from runner.llm.packing import batch
from runner.llm.training.noise import Noise, lengths
from tests.llm.training import small


def test_every_token_has_the_noise_of_its_document() -> None:
    documents = [np.arange(3, 3 + length, dtype=np.int32) for length in (4, 16, 9)]
    packed, padded = batch.packed(documents), batch.padded(documents, pad_id=0)
    model = small.model()
    embeddings = model.get_input_embeddings()
    clean = embeddings(packed["input_ids"])
    noise = Noise(model, 5.0)
    noise.begin(packed)
    draws = torch.stack([embeddings(packed["input_ids"]) - clean for _ in range(400)])[:, 0]
    wanted = [5.0 / math.sqrt(len(one) * 32) for one in documents for _ in one]
    assert draws.abs().amax((0, 2)).tolist() == pytest.approx(wanted, rel=0.01)
    assert draws.std((0, 2)).tolist() == pytest.approx([one / math.sqrt(3) for one in wanted], rel=0.05)
    assert lengths(padded)[:, 0].tolist() == [4, 16, 9]
    noise.begin(padded)
    rows = embeddings(padded["input_ids"]).shape
    assert rows == (3, 16, 32)
    model.eval()
    assert torch.equal(embeddings(packed["input_ids"]), clean)
    noise.remove()
    assert torch.equal(model.train().get_input_embeddings()(packed["input_ids"]), clean)


def test_a_run_with_noise_learns_something_else_and_leaves_no_hook(tmp_path: Path) -> None:
    listed = small.steps(2)
    noisy, quiet = small.model(), small.model()
    small.fit(tmp_path / "a", noisy, listed, neftune_alpha=5.0)
    small.fit(tmp_path / "b", quiet, listed)
    assert not small.same(small.weights(noisy), small.weights(quiet))
    assert not noisy.get_input_embeddings()._forward_hooks
