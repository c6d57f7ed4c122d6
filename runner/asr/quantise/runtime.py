"""What the ONNX variants share: written with the proof that they compute what torch does, opened as sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx
import torch

from runner.asr.pieces import Source
from runner.asr.quantise.base import Made, Opened
from runner.asr.quantise.export import parity, save
from runner.asr.quantise.session import CPU, Session, on
from runner.schema.errors import JobError


def write(
    graph: onnx.ModelProto, model: Any, folder: Path, *, shapes: Sequence[torch.Tensor], most: float | None
) -> Made:
    """Save ``graph`` and hold it against ``model``; ``most`` is the largest difference allowed, see ``Parity``.

    ``folder`` has the model's config. Raises JobError (ModelInvalid) when the two differ.
    """
    files = save(graph, folder)
    found = parity(model, Session(folder, providers=[CPU]), shapes)
    for one in found:
        if most is not None and not one.difference <= most:
            raise JobError(
                f"the exported graph differs from torch by {one.difference:g} of the logits' deviation at shape "
                f"{one.shape}, at most {most:g} is allowed: this model cannot be exported faithfully",
                failure="ModelInvalid",
            )
    return Made(weights=files, format="onnx", parity=[asdict(one) for one in found])


def open_session(
    source: Source, *, device: str, precision: str, why: str, providers: list[Any] | None = None
) -> Opened:
    """The graph in ``source.folder``, fed without a mask: windows of different lengths go one by one."""
    session = Session(Path(source.folder), providers=providers or on(device))
    about = {"precision": precision, "precision_why": why}
    return Opened(model=session, source=replace(source, mask=False), settled=True, about=about)
