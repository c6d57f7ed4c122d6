"""Tiny seeded language models, one a family, each made from its own config class of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from runner.registry.recognise import families

SHAPE: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = SHAPE | {"num_key_value_heads": 2}
NARROW = GROUPED | {"head_dim": 6}  # not hidden / heads, as in Gemma and Qwen3
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = SHAPE | {
    "num_key_value_heads": 4,  # as many as heads, or transformers' eager attention repeats keys 0 times
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
YARN = {"rope_type": "yarn", "rope_theta": 150000.0, "factor": 4.0, "original_max_position_embeddings": 16}
SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}}
TOWER = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24}
TOWER |= {"image_size": 28, "patch_size": 14}
QWEN_TOWER = {"depth": 1, "num_heads": 2, "patch_size": 14}
# family -> (config class, config)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", GROUPED),
    "mistral": ("MistralConfig", GROUPED | {"sliding_window": 8}),
    "mixtral": ("MixtralConfig", GROUPED | EXPERTS),
    "qwen2": ("Qwen2Config", GROUPED | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    "qwen3": ("Qwen3Config", NARROW),
    "qwen3-moe": ("Qwen3MoeConfig", NARROW | EXPERTS | {"moe_intermediate_size": 24}),
    "gemma": ("GemmaConfig", NARROW),
    "gemma2": ("Gemma2Config", NARROW | {"sliding_window": 8}),
    "gemma3": ("Gemma3TextConfig", NARROW | {"num_hidden_layers": 6, "sliding_window": 8}),
    "phi3": ("Phi3Config", GROUPED),
    "deepseek-v2": ("DeepseekV2Config", LATENT | {"q_lora_rank": None}),
    "deepseek-v3": ("DeepseekV3Config", LATENT | {"q_lora_rank": 24}),
    "gpt-oss": ("GptOssConfig", NARROW | EXPERTS | {"sliding_window": 8, "rope_parameters": YARN}),
    "granite": ("GraniteConfig", GROUPED | {"attention_multiplier": 0.1}),
    "olmo2": ("Olmo2Config", GROUPED),
    "smollm3": ("SmolLM3Config", GROUPED | {"num_hidden_layers": 4}),
    "qwen2-vl": (
        "Qwen2VLConfig",
        {"text_config": GROUPED | SECTIONS, "vision_config": QWEN_TOWER | {"embed_dim": 16, "hidden_size": 32}},
    ),
    "qwen2-5-vl": (
        "Qwen2_5_VLConfig",
        {
            "text_config": GROUPED | SECTIONS,
            "vision_config": QWEN_TOWER | {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32},
        },
    ),
    "llava": (
        "LlavaConfig",
        {
            "text_config": GROUPED | {"model_type": "llama"},
            "vision_config": TOWER | {"model_type": "clip_vision_model"},
        },
    ),
    "gemma3-vision": ("Gemma3Config", {"text_config": NARROW, "vision_config": TOWER, "mm_tokens_per_image": 4}),
    "bert": ("BertConfig", SHAPE),
    "roberta": ("RobertaConfig", SHAPE),
    "xlm-roberta": ("XLMRobertaConfig", SHAPE),
    "mpnet": ("MPNetConfig", SHAPE),
    "modernbert": (
        "ModernBertConfig",
        SHAPE | {"num_hidden_layers": 4, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 8},
    ),
}


def config(name: str, **changes: Any) -> Any:
    """The config of the tiny model of family ``name``; ``changes`` go over its fields."""
    config_class, fields = MODELS[name]
    return getattr(transformers, config_class)(**fields | changes)


def model(name: str, **changes: Any) -> Any:
    """The tiny model of family ``name``, always with the same weights."""
    torch.manual_seed(0)
    return getattr(transformers, families()[name].architectures[0])(config(name, **changes)).eval()


def save(made: Any, folder: Path) -> Path:
    """Save ``made`` as transformers does, with a vocabulary beside it."""
    made.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return folder
