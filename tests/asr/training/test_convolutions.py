"""Convolutions with features last: the same values and gradients, whether frozen, trained or computed again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCTC

from runner.asr.training.convolutions import features_last
from tests.asr import tiny


@pytest.mark.parametrize("name", ["wav2vec2", "hubert", "wavlm", "data2vec-audio"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_values_and_gradients_stay(tmp_path: Path, name: str, checkpointing: bool) -> None:
    plain, fast = (AutoModelForCTC.from_pretrained(tiny.ctc(tmp_path / name, name)) for _ in range(2))
    assert features_last(fast)
    x = torch.from_numpy(tiny.sound(1.3))[None].repeat(2, 1)
    found = []
    for model in (plain, fast):
        encoder = model.base_model.feature_extractor.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        y = encoder(x)
        torch.autograd.backward(y.square().mean())
        found.append((y, {key: one.grad for key, one in encoder.named_parameters()}))
    (y, gradients), (z, others) = found
    assert y.shape == z.shape
    assert torch.allclose(y, z, atol=1e-5)
    for key, gradient in gradients.items():
        assert gradient is not None
        assert torch.allclose(gradient, others[key], atol=1e-5, rtol=1e-3), key


def test_group_norm_is_left_alone(tmp_path: Path) -> None:
    model = AutoModelForCTC.from_pretrained(tiny.ctc(tmp_path, "wav2vec2-group"))
    assert not features_last(model)
    assert "forward" not in vars(model.base_model.feature_extractor.conv_layers[0])


def test_mel_front_ends_are_left_alone(tmp_path: Path) -> None:
    assert not features_last(AutoModelForCTC.from_pretrained(tiny.ctc(tmp_path, "wav2vec2-bert")))
