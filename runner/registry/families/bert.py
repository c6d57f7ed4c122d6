"""BERT as an encoder of sentences (Devlin et al. 2018)."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import ENCODER, Language

FAMILY = Family(
    name="bert",
    title="BERT, encoder",
    model_types=("bert",),
    architectures=("BertModel",),
    name_pattern=r"(?<![a-z])(?<!vec2-)(?<!w2v-)bert|bge-(?!m3)|all-minilm|(?<!multilingual-)e5-",
    task="encoder",
    features="tokens",
    limits=("pooling and normalisation lie in modules.json of a sentence encoder: they are no part of these facts",),
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
