"""`asr-finetune` on a GPU: the quickstart's new voice is learned in each precision. `pytest -m gpu tests/gpu`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.jobs.helpers import QUICKSTART, apply, ran

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # transformers leaves its JSON open
]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_voice_is_learned(tmp_path: Path, precision: str) -> None:
    spec = {
        "kind": "asr-finetune",
        "name": "voice",
        "model": str(QUICKSTART / "model"),
        "data": {name: str(QUICKSTART / "finetune" / f"{name}.jsonl") for name in ("train", "validation")},
        "train": {"steps": 60, "learning_rate": 0.001, "freeze_feature_encoder": False},
        "batch": {"seconds": 20.0},
        "lint": {"allow": ["leaked_speaker"]},
        "precision": precision,
        "compute": {"cpus": 1, "gpus": 1},
    }
    (result,), store = apply(tmp_path, spec)
    metrics = ran(result, store).manifest["metrics"]
    assert metrics["wer_before"] > 0.5
    assert metrics["wer"] < 0.5 * metrics["wer_before"]
