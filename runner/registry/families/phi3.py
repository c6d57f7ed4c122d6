"""Phi-3, Phi-3.5 and Phi-4 as text models (Abdin et al. 2024): one projection for q, k, v and one for gate, up."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import Language

FAMILY = Family(
    name="phi3",
    title="Phi-3, Phi-3.5 and Phi-4, dense",
    model_types=("phi3",),
    architectures=("Phi3ForCausalLM",),
    name_pattern=r"phi-?[34](?!.*(vision|multimodal|moe|small))",
    task="causal",
    features="tokens",
    limits=(
        "one adapter covers q, k and v together, and one gate and up",
        "with longrope, texts beyond original_max_position_embeddings are rotated by other factors than shorter ones",
    ),
    defaults={
        "vocab_size": 32064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-05,
        "num_key_value_heads": 32,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0,
        "sliding_window": None,
    },
    language=Language(
        gguf="phi3",
        lora=("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
        window="all",
        stops=("<|end|>", "<|im_end|>", "<|endoftext|>"),
    ),
)
