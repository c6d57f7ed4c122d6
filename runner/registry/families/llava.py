"""LLaVA 1.5 and its like (Liu et al. 2023): the text model inside has a family of its own."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import Language

FAMILY = Family(
    name="llava",
    title="LLaVA, text and images",
    model_types=("llava",),
    architectures=("LlavaForConditionalGeneration",),
    name_pattern=r"llava(?!.*(next|1\.6|onevision|video))",
    task="image-text",
    features="tokens",
    limits=("adapters, patches and the forecast are of the text model; the tower for images stays as it is",),
    defaults={
        "vocab_size": 32000,
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
        "mlp_bias": False,
    },
    language=Language(
        gguf="llama",
        lora_inside="language_model",
        template="the processor's own",
        stops=("</s>",),
    ),
)
