"""XLM-RoBERTa as an encoder of sentences (Conneau et al. 2019)."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import ENCODER, Language

FAMILY = Family(
    name="xlm-roberta",
    title="XLM-RoBERTa, encoder",
    model_types=("xlm-roberta",),
    architectures=("XLMRobertaModel",),
    name_pattern=r"xlm-r|multilingual-e5|bge-m3",
    task="encoder",
    features="tokens",
    limits=(
        "pooling and normalisation lie in modules.json of a sentence encoder: they are no part of these facts",
        "positions count from pad_token_id + 1",
    ),
    defaults={
        "vocab_size": 30522,
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
        gguf="bert",
        patches=ENCODER,
        lora=("query", "key", "value", "dense"),
        norm="layer",
        norm_place="after",
        norm_eps="layer_norm_eps",
        gated=False,
        bias={"qkv": True, "o": True, "mlp": True},
        attention="both ways",
        positions="learned",
        head=False,
        template="none",
    ),
)
