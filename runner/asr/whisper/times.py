"""Where whisper's decoder looked while it wrote: frames of tokens, from cross attention by dynamic time warping.

The method of whisper's authors (openai/whisper, timing.py): attention of the heads that follow the sound, each frame
normalised over the tokens and smoothed over time, then the cheapest monotonic path. The path's rows are tokens; a token
begins at the first frame of its row.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from runner.schema.errors import JobError

Matrix = NDArray[np.float64]
Heads = dict[int, list[int]]  # layer -> heads


def alignment_heads(model: Any) -> Heads:
    """Heads that follow the sound: those that the model names, else, as the authors do, the decoder's upper half,
    whose times are rougher. Raises JobError (ModelInvalid) when a named one does not exist."""
    layers, heads = model.config.decoder_layers, model.config.decoder_attention_heads
    named = getattr(model.generation_config, "alignment_heads", None)
    pairs = named or [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)]
    found: Heads = {}
    for layer, head in pairs:
        if not (0 <= layer < layers and 0 <= head < heads):
            raise JobError(
                f"generation_config.json names alignment head {[layer, head]}, but the decoder has {layers} layers of "
                f"{heads} heads: mend alignment_heads or remove it",
                failure="ModelInvalid",
            )
        found.setdefault(layer, []).append(head)
    return found


@contextmanager
def watched(model: Any, heads: Heads) -> Iterator[dict[int, torch.Tensor]]:
    """Cross attention of ``heads`` in the decoder's call inside: layer -> [windows, heads, tokens, frames].

    Only there, and only in these layers, attention is computed in the way that can be looked at; elsewhere fused.
    """
    shown = copy.deepcopy(model.config)
    shown._attn_implementation = "eager"
    seen: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            seen[layer] = output[1][:, heads[layer]]

        return hook

    parts = {layer: model.get_decoder().layers[layer].encoder_attn for layer in heads}
    hooks = [part.register_forward_hook(keep(layer)) for layer, part in parts.items()]
    for part in parts.values():
        part.config = shown
    try:
        yield seen
    finally:
        for part, hook in zip(parts.values(), hooks, strict=True):
            part.config = model.config
            hook.remove()


def begins(weights: torch.Tensor, *, skip: int, median: int) -> NDArray[np.intp]:
    """The first frame of each row after the first ``skip``; never falling.

    ``weights`` is [heads, rows, frames]: row i is what was looked at while the token after input token i was chosen.
    ``median`` is the width of the smoothing filter in frames, odd. NaN is taken for 0: it is told of elsewhere.
    """
    weights = weights.float().nan_to_num()
    spread, mean = torch.std_mean(weights, dim=-2, keepdim=True, correction=0)
    even = (weights - mean) / spread.clamp_min(1e-8)  # a frame that nobody looks at has no spread
    smooth = _median(even, width=median).mean(dim=0)[skip:]
    rows, frames = path(-smooth.double().cpu().numpy())
    return frames[np.flatnonzero(np.diff(rows, prepend=-1))]


def audible(loud: NDArray[np.bool_], *, first: int, last: int, reach: int) -> tuple[int, int] | None:
    """Where a word put at frames ``first`` to ``last`` can be heard, half-open: what is ``loud`` of its own frames.

    Where nothing is, the loud frames on the side where the nearest lies, at most ``reach`` off; None without any.
    """
    frames = np.flatnonzero(loud)
    gaps = np.maximum(0, np.maximum(first - frames, frames - max(first, last - 1)))
    nearest = gaps.min(initial=reach + 1)
    if nearest > reach:
        return None
    if nearest:
        before = bool(frames[gaps.argmin()] < first)
        frames = frames[(gaps <= reach) & ((frames < first) == before)]
    else:
        frames = frames[gaps == 0]
    return int(frames[0]), int(frames[-1]) + 1


def _median(values: torch.Tensor, *, width: int) -> torch.Tensor:
    """Running median over the last dimension, its edges mirrored. Left as it is when shorter than the filter."""
    reach = width // 2
    if values.shape[-1] <= reach:
        return values
    padded: Any = functional.pad(values, (reach, reach), mode="reflect")
    found: torch.Tensor = padded.unfold(-1, width, 1).median(dim=-1).values
    return found


def path(costs: Matrix) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The cheapest path from the first to the last cell of ``costs``, [rows, frames], in steps of one: (rows, frames).

    Within a row the best cost is m[j] + min(a[j], best[j - 1]), a being what comes from the row above. With S the row's
    running sum that is S[j] + min over k <= j of (a[k] - S[k - 1]): a whole row at once.
    """
    rows, frames = costs.shape
    best = np.full((rows + 1, frames + 1), np.inf)
    best[0, 0] = 0.0
    for row in range(rows):
        above = np.minimum(best[row, :-1], best[row, 1:])
        sums = np.cumsum(costs[row])
        best[row + 1, 1:] = sums + np.minimum.accumulate(above - (sums - costs[row]))
    row, frame = rows, frames
    cells = []
    while row and frame:
        cells.append((row - 1, frame - 1))
        both, up, left = best[row - 1, frame - 1], best[row - 1, frame], best[row, frame - 1]
        if both < up and both < left:
            row, frame = row - 1, frame - 1
        elif up < left:
            row -= 1
        else:
            frame -= 1
    found = np.array(cells[::-1], dtype=np.intp)
    return found[:, 0], found[:, 1]
