"""Qwen3 with experts (Yang et al. 2025)."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import ATTENTION, QK_DECODER, Experts, Language

FAMILY = Family(
    name="qwen3-moe",
    title="Qwen3, mixture of experts",
    model_types=("qwen3_moe",),
    architectures=("Qwen3MoeForCausalLM",),
    name_pattern=r"qwen-?3.*(a3b|a22b)",
    task="causal",
    features="tokens",
    limits=(
        "the experts are stacks of matrices, not linear modules: `auto` and quantisation leave them as they are",
        "fp16 overflows in its layers: bf16 or fp32",
    ),
    defaults={
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-06,
        "num_key_value_heads": 4,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "use_sliding_window": False,
        "sliding_window": None,
        "decoder_sparse_step": 1,
        "moe_intermediate_size": 768,
        "num_experts_per_tok": 8,
        "num_local_experts": 128,
    },
    language=Language(
        gguf="qwen3moe",
        patches=(*QK_DECODER, "experts"),
        lora=ATTENTION,
        qk_norm="head",
        bias={"qkv": "attention_bias", "o": "attention_bias"},
        window="all",
        experts=Experts(count=("num_experts", "num_local_experts"), width="moe_intermediate_size", every=True),
        stops=("<|im_end|>", "<|endoftext|>"),
    ),
)
