"""`tensorrt`: the model as ONNX, compiled by TensorRT through ONNX Runtime, where its provider is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

from runner.asr.pieces import Source
from runner.asr.quantise import runtime, session
from runner.asr.quantise.base import Base, Made, Opened
from runner.asr.quantise.export import examples, export
from runner.registry.variant import Variant
from runner.schema.errors import JobError

WHAT = "an ONNX graph that TensorRT compiles for the GPU it finds, in fp16 with LayerNorm in fp32"
PROVIDER = "TensorrtExecutionProvider"
# LayerNorm sums squares: in fp16 they overflow, and texts turn to rubbish
OPTIONS = {"trt_fp16_enable": True, "trt_layer_norm_fp32_fallback": True, "trt_timing_cache_enable": True}


def quantise(base: Base, folder: Path) -> Made:
    """Export and hold against torch, in fp32: engines are made when the variant is opened."""
    _check()
    shapes = examples(base.features, rate=base.rate)
    return runtime.write(export(base.folded(), shapes[0]), base.folded(), folder, shapes=shapes, most=1e-3)


def load(variant: Variant, source: Source, *, device: str) -> Opened:
    """A session of ONNX Runtime on a GPU."""
    _check()
    if device != "cuda":
        raise JobError(
            "not available here: TensorRT needs a GPU, and the job has none (compute.gpus)", failure="Infeasible"
        )
    providers: list[Any] = [(PROVIDER, OPTIONS), *session.on(device)]
    return runtime.open_session(source, device=device, precision="fp16", why=WHAT, providers=providers)


def _check() -> None:
    if PROVIDER not in onnxruntime.get_available_providers():
        there = ", ".join(onnxruntime.get_available_providers())
        raise JobError(f"not available here: ONNX Runtime has {there}, not {PROVIDER}", failure="Infeasible")
