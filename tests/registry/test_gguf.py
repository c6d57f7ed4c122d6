"""GGUF architectures of the families against llama.cpp's own names."""

from __future__ import annotations

import pytest
from gguf.constants import MODEL_ARCH_NAMES, MODEL_TENSORS

from runner.registry.recognise import families

LANGUAGE = {family.name: family.language for family in families().values() if family.language}


@pytest.mark.parametrize("name", sorted(LANGUAGE))
def test_a_family_names_an_architecture_of_llama_cpp_that_has_its_parts(name: str) -> None:
    language = LANGUAGE[name]
    if language.gguf is None:
        assert name == "mpnet"
        return
    architecture = {text: key for key, text in MODEL_ARCH_NAMES.items()}[language.gguf]
    tensors = {tensor.name for tensor in MODEL_TENSORS[architecture]}
    assert ("ATTN_Q_NORM" in tensors) >= (language.qk_norm is not None)
    assert ("ATTN_SINKS" in tensors) == language.sinks
    assert ("FFN_GATE_EXP" in tensors) >= (language.experts is not None)
    assert ("ATTN_KV_A_MQA" in tensors) == (language.attention == "latent")
