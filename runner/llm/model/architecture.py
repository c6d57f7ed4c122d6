"""A model from random weights, the same for the same seed and sizes, as a folder like any other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from runner.llm.model.load import quiet

KINDS: dict[str, tuple[type[Any], type[Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


def make(
    folder: Path,
    *,
    type: Literal["llama", "qwen3"],  # noqa: A002 (the spec's own word)
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int,
    feed_forward: int,
    positions: int,
    vocabulary: int,
    tied: bool,
    tokenizer: Any,
    seed: int,
) -> Path:
    """Write config, fp32 weights and tokenizer to ``folder``, which is there whole or not at all; what is there stays.

    ``vocabulary`` is the number of rows, or that of the tokenizer's entries where these are more. Weights are drawn as
    transformers does for the config (normal, 0.02), from ``seed`` and nothing else.
    """
    if folder.exists():
        return folder
    config_class, model_class = KINDS[type]
    ids = {f"{one}_token_id": getattr(tokenizer, f"{one}_token_id") for one in ("bos", "eos", "pad")}
    config = config_class(
        vocab_size=max(vocabulary, len(tokenizer)),
        hidden_size=hidden,
        intermediate_size=feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=hidden // heads,
        max_position_embeddings=positions,
        tie_word_embeddings=tied,
        **ids,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
    half = folder.with_name(f"{folder.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    with quiet():
        model.save_pretrained(half)
        tokenizer.save_pretrained(half)
    half.rename(folder)
    return folder
