"""What a step will need, as far as it is known cheaply. Estimates, and called so wherever they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.plan.step import Input
from runner.registry.family import Resolved

GB = 10**9
MEMORY_FACTOR = 2.0  # weights once, and activations and buffers about as much again
RUNTIME_GB = 0.5  # python with torch and transformers, before any weights


def estimate(inputs: Sequence[Input], models: Sequence[Resolved]) -> dict[str, Any]:
    """Keys where known: parameters, weights_gb, memory_gb (of one worker), files, input_gb (of the data, as stored)."""
    found: dict[str, Any] = {}
    weights = sum(model.facts["weights_bytes"] for model in models)
    if weights:
        found["parameters"] = sum(model.facts["parameters"] for model in models)
        found["weights_gb"] = round(weights / GB, 3)
        found["memory_gb"] = round(RUNTIME_GB + MEMORY_FACTOR * weights / GB, 1)
    data = [entry for entry in inputs if entry.path not in {model.path for model in models}]
    if any(entry.files for entry in data):
        found["files"] = sum(entry.files for entry in data)
        found["input_gb"] = round(sum(entry.size for entry in data) / GB, 3)
    return found
