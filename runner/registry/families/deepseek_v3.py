"""DeepSeek-V3 and R1 (DeepSeek-AI 2024, 2025): latent attention, 256 experts."""

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
    name="deepseek-v3",
    title="DeepSeek-V3 and R1, mixture of experts",
    model_types=("deepseek_v3",),
    architectures=("DeepseekV3ForCausalLM",),
    name_pattern=r"deepseek.*(v3|r1(?!-distill))",
    task="causal",
    features="tokens",
    limits=(
        "PEFT takes gate_proj, up_proj and down_proj for those of all experts: `auto` leaves MLPs without adapters",
        "the experts are stacks of matrices, not linear modules: quantisation leaves them as they are",
        "the layer that predicts a second token lies in the published file and is not loaded",
        "the published folders bring their own code (auto_map): use a copy without it",
    ),
    defaults={
        "vocab_size": 129280,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-06,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "first_k_dense_replace": 3,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "moe_intermediate_size": 2048,
        "num_experts_per_tok": 8,
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
