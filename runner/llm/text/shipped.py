"""The chat templates of this project, one file each in `templates/`; replies stand between generation marks."""

from __future__ import annotations

from collections.abc import Mapping
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
    "qwen2": "chatml",
    "qwen2-vl": "chatml",
    "qwen2-5-vl": "chatml",
    "qwen3": "qwen3",
    "qwen3-moe": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "gemma3-vision": "gemma",
    "phi3": "phi3",
    "smollm3": "chatml",
}


def of_family(family: str) -> str | None:
    """Name of the template that models of a family are taught with; None where we have none."""
    name = FAMILIES.get(family)
    return name if name in shipped() else None
