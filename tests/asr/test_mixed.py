"""What bf16 must leave in fp32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from runner.asr.acoustic import Acoustic
from runner.asr.pieces import Source
from tests.jobs.helpers import QUICKSTART

SOURCE = Source(
    folder=str(QUICKSTART / "model"), rate=16000, stride=320, receptive=400, waveform=True, normalise=True, mask=True
)


def formats(model: nn.Module) -> dict[str, tuple[torch.dtype, torch.dtype]]:
    """By module name, the formats that came in and went out, once the model has run."""
    seen: dict[str, tuple[torch.dtype, torch.dtype]] = {}

    def look(name: str) -> None:
        def note(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if inputs and isinstance(output, torch.Tensor):
                seen[name] = (inputs[0].dtype, output.dtype)

        modules[name].register_forward_hook(note)

    modules = dict(model.named_modules())
    for name in modules:
        look(name)
    return seen


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # transformers leaves its JSON open
def test_products_are_in_bf16_and_what_they_add_up_to_in_fp32() -> None:
    acoustic = Acoustic(SOURCE, device="cpu", dtype=torch.bfloat16)
    seen = formats(acoustic.model)
    acoustic.log_probs([torch.randn(16000, generator=torch.Generator().manual_seed(0)).numpy()])
    exact = {name for name, (_, out) in seen.items() if out == torch.float32}
    assert {"lm_head.inner", "wav2vec2.feature_projection.projection.inner"} <= exact
    assert any("pos_conv_embed" in name for name in exact)
    assert {name for name in seen if name.endswith("layer_norm") and "encoder.layers" in name} <= exact
    convolutions = [name for name in seen if ".convolutions." in name]
    assert convolutions and set(convolutions) <= exact
    fast = {name for name, (_, out) in seen.items() if out == torch.bfloat16}
    assert any("q_proj" in name for name in fast) and any("intermediate_dense" in name for name in fast)
