"""The chat templates of this project, one file each in `templates/`; replies stand between generation marks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("templates")


@cache
def shipped() -> Mapping[str, str]:
    """Template texts by name."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.jinja"))}


# Families whose models share a format; others of a family bring their own template with their tokenizer
FAMILIES: Mapping[str, str] = {
    "llama": "llama3",
    "mistral": "mistral",
    "mixtral": "mistral",
    "qwen2": "qwen2_5",
    "qwen2-vl": "qwen2_5",
    "qwen2-5-vl": "qwen2_5",
    "qwen3": "qwen3",
    "qwen3-moe": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "gemma3-vision": "gemma",
    "phi3": "phi3",
    "smollm3": "chatml",
    "olmo2": "olmo2",
    "granite": "granite",
    "deepseek-v2": "deepseek2",
    "deepseek-v3": "deepseek3",
}
# Tokens without which a format would fall to pieces: a model of the family may have been made without them
NEEDS: Mapping[str, tuple[str, ...]] = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "deepseek2": (),
    "deepseek3": ("<｜User｜>", "<｜Assistant｜>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "granite": ("<|start_of_role|>", "<|end_of_role|>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "mistral": (),
    "olmo2": (),
    "phi3": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "qwen2_5": ("<|im_start|>", "<|im_end|>"),
    "qwen3": ("<|im_start|>", "<|im_end|>"),
}


def of_family(family: str, vocabulary: Collection[str]) -> str | None:
    """Name of the template that models of a family are taught with, where ``vocabulary`` has its tokens."""
    name = FAMILIES.get(family)
    return name if name is not None and all(token in vocabulary for token in NEEDS[name]) else None
