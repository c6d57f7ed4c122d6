"""DeepSeek-V2 (DeepSeek-AI 2024): latent attention and shared experts."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import DECODER, Experts, Language

LATENT = ("q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj")
EXPERTS = Experts(
    count=("n_routed_experts",),
    width="moe_intermediate_size",
    dense_first="first_k_dense_replace",
    shared="n_shared_experts",
)

FAMILY = Family(
    name="deepseek-v2",
    title="DeepSeek-V2, mixture of experts",
    model_types=("deepseek_v2",),
    architectures=("DeepseekV2ForCausalLM",),
    name_pattern=r"deepseek.*v2(?!\d)",
    task="causal",
    features="tokens",
    limits=(
        "PEFT takes gate_proj, up_proj and down_proj for those of all experts: `auto` leaves MLPs without adapters",
        "the experts are stacks of matrices, not linear modules: quantisation leaves them as they are",
        "the published folders bring their own code (auto_map): use a copy without it",
    ),
    defaults={
        "vocab_size": 102400,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-06,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "first_k_dense_replace": 0,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "moe_intermediate_size": 1407,
    },
    language=Language(
        gguf="deepseek2",
        patches=(*DECODER, "experts"),
        lora=(*LATENT, "o_proj"),
        bias={"qkv": "attention_bias", "o": "attention_bias"},
        attention="latent",
        experts=EXPERTS,
        stops=("<｜end▁of▁sentence｜>",),
    ),
)
