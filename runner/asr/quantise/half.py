"""Weights of 16 bits in the form that transformers itself reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from runner.asr.acoustic import load_whole
from runner.asr.pieces import Source
from runner.asr.quantise.base import Made, Opened
from runner.schema.errors import JobError

FILE = "model.safetensors"


def save(model: Any, folder: Path, dtype: torch.dtype) -> Made:
    """Write the weights of ``model`` in ``dtype``. Raises JobError when they do not fit into it."""
    state = {name: weight.to(dtype) if weight.is_floating_point() else weight for name, weight in _state(model).items()}
    beyond = [name for name, weight in state.items() if not torch.isfinite(weight).all()]
    if beyond:
        raise JobError(f"{beyond[0]!r} has weights beyond the largest number of {dtype}", failure="ModelInvalid")
    save_file(state, folder / FILE, metadata={"format": "pt"})
    name = str(dtype).removeprefix("torch.")
    config = folder / "config.json"
    content = {**json.loads(config.read_text("utf-8")), "dtype": name}
    config.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")
    return Made(weights=[FILE], format="transformers", settings={"dtype": name})


def load(source: Source) -> Opened:
    """What ``save`` wrote, in fp32."""
    return Opened(model=load_whole(source), source=source)


def _state(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().contiguous() for name, weight in model.state_dict().items()}
