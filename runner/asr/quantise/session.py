"""A model that ONNX Runtime computes, in the dress of a transformers model, so that `Acoustic` need not know."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import torch
from torch import nn
from transformers import AutoConfig

from runner.asr.acoustic import SMALL
from runner.schema.errors import JobError

FILE = "model.onnx"
INPUT = "input"
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


class Session(nn.Module):
    """Logits of batches of equal lengths, without a mask."""

    def __init__(self, folder: Path, *, providers: list[Any]) -> None:
        super().__init__()
        self.config = AutoConfig.from_pretrained(folder, local_files_only=True)
        self.config._attn_implementation = "onnxruntime"
        self.device = torch.device("cpu")  # where inputs and outputs lie
        options = onnxruntime.SessionOptions()
        hidden = getattr(self.config, "hidden_size", None) or SMALL
        options.intra_op_num_threads = 1 if hidden < SMALL else torch.get_num_threads()
        # threads that wait burn a processor that others want: torch's, other workers'
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        there = [one for one in providers if _name(one) in onnxruntime.get_available_providers()]
        try:
            self._run = onnxruntime.InferenceSession(str(folder / FILE), options, providers=there).run
        except Exception as error:  # its exceptions have no class in common
            reason = str(error).strip().partition("\n")[0]
            raise JobError(f"{folder / FILE} cannot be loaded: {reason}", failure="ModelInvalid") from error

    @property
    def base_model(self) -> Session:
        return self

    def forward(self, input_values: torch.Tensor | None = None, input_features: torch.Tensor | None = None) -> Any:
        """[batch, samples] or [batch, frames, bins] to an object whose ``logits`` are [batch, frames, vocab]."""
        given = input_values if input_values is not None else input_features
        assert given is not None, "nothing to hear"
        (logits,) = self._run(None, {INPUT: given.cpu().numpy()})
        return SimpleNamespace(logits=torch.from_numpy(logits))

    @staticmethod
    def _get_feat_extract_output_lengths(lengths: torch.Tensor) -> torch.Tensor:
        """No fewer than there are: batches hold equal lengths, so there is nothing to cut off."""
        return lengths


def on(device: str) -> list[Any]:
    """Where sessions compute, best first."""
    return [CUDA, CPU] if device == "cuda" else [CPU]


def _name(provider: Any) -> str:
    return str(provider[0] if isinstance(provider, tuple) else provider)
