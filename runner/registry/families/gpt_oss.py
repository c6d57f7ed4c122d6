"""gpt-oss (OpenAI 2025): attention sinks, a window in every other layer, experts with biases."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import ATTENTION, DECODER, Experts, Language

FAMILY = Family(
    name="gpt-oss",
    title="gpt-oss, mixture of experts",
    model_types=("gpt_oss",),
    architectures=("GptOssForCausalLM",),
    name_pattern=r"gpt-?oss",
    task="causal",
    features="tokens",
    limits=(
        "the experts are stacks of matrices, not linear modules: `auto` and quantisation leave them as they are",
        "attention sinks need a kernel that knows them: without the `attention` patch, whole score matrices are held",
        "its clipped gate is neither swiglu nor geglu",
        "the published weights are MXFP4 and are trained as bf16, four times the size",
        "fp16 overflows in its layers: bf16 or fp32",
    ),
    defaults={
        "vocab_size": 201088,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_hidden_layers": 36,
        "num_attention_heads": 64,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-05,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "rope_theta": 150000.0,
        "sliding_window": 128,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "attention_bias": True,
    },
    language=Language(
        gguf="gpt-oss",
        patches=(*(name for name in DECODER if name != "swiglu"), "experts"),
        lora=ATTENTION,
        bias={"qkv": "attention_bias", "o": "attention_bias", "mlp": True},
        window="even",
        sinks=True,
        experts=Experts(count=("num_local_experts",), width="intermediate_size"),
        stops=("<|return|>", "<|endoftext|>", "<|call|>"),
    ),
)
