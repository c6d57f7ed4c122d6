"""MPNet as an encoder of sentences (Song et al. 2020): relative positions that all layers share."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import Language

FAMILY = Family(
    name="mpnet",
    title="MPNet, encoder",
    model_types=("mpnet",),
    architectures=("MPNetModel",),
    name_pattern=r"mpnet",
    task="encoder",
    features="tokens",
    limits=(
        "pooling and normalisation lie in modules.json of a sentence encoder: they are no part of these facts",
        "its position bias needs the whole score matrix",
        "llama.cpp has no such model",
    ),
    defaults={
        "vocab_size": 30527,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 512,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "tie_word_embeddings": True,
    },
    language=Language(
        gguf=None,
        patches=("layer_norm", "lora_linear"),
        lora=("q", "k", "v", "o", "dense"),
        norm="layer",
        norm_place="after",
        norm_eps="layer_norm_eps",
        gated=False,
        bias={"qkv": True, "o": True, "mlp": True},
        attention="both ways",
        positions="relative",
        head=False,
        template="none",
    ),
)
