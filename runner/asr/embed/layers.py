"""What chosen layers of a CTC model give while it runs: heard through hooks, so whatever makes batches exact stays so.

Layers are numbered as users of transformers know them: 0 is what enters the first layer (projected features with their
positions), k the output of the k-th layer, and the last one what the head reads, after the encoder's own final norm
where it has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from runner.schema.errors import JobError


class Layers:
    """Keeps the output of ``layers`` of each forward of ``model`` until it is taken."""

    def __init__(self, model: Any, layers: Sequence[int]) -> None:
        if getattr(model.config, "add_adapter", False):
            raise JobError(
                "the model shortens its frames after the encoder (add_adapter), so its layers do not match its output",
                failure="ModelInvalid",
            )
        self._layers = layers
        self._calls: list[dict[int, torch.Tensor]] = []
        encoder = getattr(model.base_model, "encoder", model.base_model)
        for layer in layers:
            self._listen(encoder, layer)

    def _listen(self, encoder: Any, layer: int) -> None:
        if layer == len(encoder.layers):
            encoder.register_forward_hook(lambda _, args, output: self._keep(layer, output.last_hidden_state))
        elif layer == 0:
            encoder.layers[0].register_forward_pre_hook(
                lambda _, args, kwargs: self._keep(0, args[0] if args else kwargs["hidden_states"]), with_kwargs=True
            )
        else:
            encoder.layers[layer - 1].register_forward_hook(
                lambda _, args, output: self._keep(layer, output[0] if isinstance(output, tuple) else output)
            )

    def _keep(self, layer: int, states: torch.Tensor) -> None:
        if not self._calls or layer in self._calls[-1]:
            self._calls.append({})
        self._calls[-1][layer] = states.clone()  # layers work in place

    def forget(self) -> None:
        """Drop what a forward left that failed."""
        self._calls.clear()

    def take(self, frames: Sequence[int], *, packed: bool) -> list[list[torch.Tensor]]:
        """By window, by layer: [frames, features] in fp32, without padding; ``frames`` are true lengths."""
        calls, self._calls = self._calls, []
        if packed:
            (call,) = calls
            split = [call[layer][0].split_with_sizes(list(frames)) for layer in self._layers]
            return [[states.float() for states in window] for window in zip(*split, strict=True)]
        rows = [[call[layer][i] for layer in self._layers] for call in calls for i in range(len(call[self._layers[0]]))]
        return [[states[:count].float() for states in row] for row, count in zip(rows, frames, strict=True)]
