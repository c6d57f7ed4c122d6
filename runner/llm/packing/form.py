"""What a model wants of a packed row, and why some cannot have one. What neither says, `probe.contamination` finds."""

from __future__ import annotations

from typing import Any

ATTENDING = {"full_attention", "sliding_attention", "chunked_attention"}  # layers that a mask or documents bind


def refusal(config: Any) -> str | None:
    """In words, why rows of a model with this configuration of transformers cannot be packed."""
    text = config.get_text_config()
    if getattr(config, "is_encoder_decoder", False):
        return f"{config.model_type} has an encoder, whose outputs all documents of a row would see"
    stateful = sorted(set(getattr(text, "layer_types", None) or ()) - ATTENDING)
    if stateful:
        return f"{text.model_type} has layers of {', '.join(stateful)}, whose state goes on into the next document"
    return None


def position_axes(config: Any) -> int:
    """Axes of `position_ids`: 4 for models with multimodal rotary positions (Qwen2-VL), otherwise 1, which is left out.

    The first of the four tells such a model where documents begin, and the others (time, height, width) turn its heads:
    text has the same place on each. With one axis alone these models see no documents, and mix them.
    """
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    inside = [rope, *(one for one in rope.values() if isinstance(one, dict))]  # of each kind of layer, in some models
    return 4 if any(one.get("mrope_section") for one in inside) else 1
