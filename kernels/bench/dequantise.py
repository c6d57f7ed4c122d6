"""Dequantise: reads the parts of a weight, writes it in full."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from runner.kernels.bench.harness.case import Case, Inputs, Peer, Shape
from runner.kernels.ops import dequantise as op
from runner.kernels.quantised import QuantisedWeight, quantise, size


def make(shape: Shape, dtype: torch.dtype, device: torch.device, *, form: str) -> Inputs:
    """One quantised weight."""
    weight_NK = torch.randn(shape["N"], shape["K"], device=device).mul_(shape["K"] ** -0.5).to(dtype)
    return (quantise(weight_NK, form),)


def work(shape: Shape, itemsize: int, *, form: str) -> Mapping[str, float]:
    """Bytes."""
    return {"forward": size(form, (shape["N"], shape["K"])) + float(shape["N"] * shape["K"] * itemsize)}


def bitsandbytes() -> Peer:
    """Its nf4 with double quantisation, of the same weight: other roundings of the scales, as many bytes."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return Peer(name="bitsandbytes", run=op.dequantise, missing="bitsandbytes is not installed")
    functional = importlib.import_module("bitsandbytes.functional")

    def prepare(weight: QuantisedWeight) -> Inputs:
        full = weight.dequantise()
        return tuple(functional.quantize_4bit(full, quant_type="nf4", compress_statistics=True))

    def called(codes: Tensor, state: Any) -> Tensor:
        weight_NK: Tensor = functional.dequantize_4bit(codes, state)
        return weight_NK

    return Peer(name="bitsandbytes", run=called, prepare=prepare, same=False)


def case(form: str) -> Case:
    """A gate projection of Llama 8B."""
    return Case(
        name=form,
        shape={"N": 14336, "K": 4096},
        tiny={"N": 6, "K": 256},
        make=partial(make, form=form),
        own=op.dequantise,
        reference=op.reference,
        compiled=op.reference if form == "nf4" else None,
        peers=(Peer(name="torch", run=op.reference), *([bitsandbytes()] if form == "nf4" else [])),
        work=partial(work, form=form),
        bound="memory",
        gradients=False,
    )


CASES = tuple(case(form) for form in ("nf4", "int4", "int8", "fp8", "fp8_block"))
