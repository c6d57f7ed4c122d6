"""NEFTune: x + u * alpha / sqrt(L d) on embeddings while training, u uniform in -1..1.  Jain et al. 2023, 2310.05914.

L is the length of a token's document. The Trainer's own hook takes that of the row: in a packed row of thirty documents
a fifth of the noise, in a padded one less for whoever is short.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.trainer_utils import unwrap_peft_model

from runner.llm.packing.step import Batch


class Noise:
    """A hook on one model's embeddings, quiet but between ``begin`` of a batch and its forward pass in training."""

    def __init__(self, model: nn.Module, alpha: float) -> None:
        self._alpha = alpha
        self._lengths: Tensor | None = None
        self._handle = unwrap_peft_model(model).get_input_embeddings().register_forward_hook(self._add)

    def begin(self, batch: Batch) -> None:
        """The next forward pass is of ``batch``."""
        self._lengths = lengths(batch)

    def remove(self) -> None:
        """Leave the model as it was."""
        self._handle.remove()

    def _add(self, module: nn.Module, _: Any, embedded: Tensor) -> Tensor:
        if not module.training or self._lengths is None:
            return embedded
        size = self._alpha / (self._lengths * embedded.shape[-1]).sqrt()
        return embedded + torch.empty_like(embedded).uniform_(-1, 1) * size[..., None].to(embedded.dtype)


def lengths(batch: Batch) -> Tensor:
    """Of each token's document, in fp32. Shapes: R rows, T tokens, gives [R, T]."""
    ids: Tensor = batch["input_ids"]
    ends: Tensor | None = batch.get("cu_seq_lens_q")
    mask: Tensor | None = batch.get("attention_mask")
    if ends is not None:
        each = ends.diff()
        return each.repeat_interleave(each, output_size=ids.numel()).view_as(ids).float()
    if mask is not None:
        return mask.sum(-1, keepdim=True).expand_as(ids).float()
    return torch.full_like(ids, ids.shape[-1]).float()
