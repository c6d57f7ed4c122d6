"""Every family of speech models against transformers itself: tiny seeded models, saved by it and resolved by us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from runner.registry.recognise import families
from runner.registry.resolve import resolve

SPEECH = [name for name, family in families().items() if family.language is None]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 10}
CONV = {"num_conv_pos_embedding_groups": 4, "num_conv_pos_embeddings": 4, "conv_dim": (8, 8, 8)}
CONV |= {"conv_kernel": (10, 8, 4), "conv_stride": (5, 4, 4), "num_feat_extract_layers": 3}
PARAKEET = {
    "vocab_size": 10,
    "pad_token_id": 9,
    "encoder_config": {
        **{key: SMALL[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")},
        "num_key_value_heads": 2,
        "subsampling_conv_channels": 4,
    },
}
WHISPER = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
WHISPER |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 10, "pad_token_id": 0}
WHISPER |= {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "begin_suppress_tokens": None}
# family -> (config class, config)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2Config", SMALL | CONV),
    "mms": ("Wav2Vec2Config", SMALL | CONV | {"adapter_attn_dim": 4}),
    "hubert": ("HubertConfig", SMALL | CONV),
    "wavlm": ("WavLMConfig", SMALL | CONV),
    "data2vec-audio": ("Data2VecAudioConfig", SMALL | CONV),
    "wav2vec2-bert": ("Wav2Vec2BertConfig", SMALL),
    "parakeet-ctc": ("ParakeetCTCConfig", PARAKEET),
    "whisper": ("WhisperConfig", WHISPER),
}


@pytest.mark.parametrize("name", SPEECH)
def test_a_family_resolves_what_transformers_saves(name: str, tmp_path: Path) -> None:
    family = families()[name]
    config_class, config = MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, family.architectures[0])(getattr(transformers, config_class)(**config))
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "vocab.json").write_text(json.dumps({"a": 0}))
    found = resolve("./model", folder=tmp_path)
    assert found.family.name == name
    assert found.facts["parameters"] == sum(t.numel() for t in model.state_dict().values()) - _tied(model)
    assert found.facts["vocab_size"] == 10
    assert (found.facts["hidden"], found.facts["layers"]) == (16, 2)
    assert found.facts.get("blank_id", model.config.pad_token_id) == model.config.pad_token_id


def _tied(model: Any) -> int:
    """Elements of tensors that share their memory with another, which a file holds once."""
    seen: set[int] = set()
    again = 0
    for tensor in model.state_dict().values():
        again += tensor.numel() if tensor.data_ptr() in seen and tensor.numel() > 1 else 0
        seen.add(tensor.data_ptr())
    return again


@pytest.mark.parametrize("name", [n for n in SPEECH if families()[n].frontend == "conv"])
def test_frames_are_counted_as_the_model_counts_them(name: str, tmp_path: Path) -> None:
    family = families()[name]
    config_class, config = MODELS[name]
    model = getattr(transformers, family.architectures[0])(getattr(transformers, config_class)(**config))
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "vocab.json").write_text(json.dumps({"a": 0}))
    facts = resolve("./model", folder=tmp_path).facts
    for samples in (facts["receptive_samples"] - 1, facts["receptive_samples"], 1000, 16000, 16001, 16079):
        expected = int(model._get_feat_extract_output_lengths(torch.tensor(samples)))
        ours = max(0, (samples - facts["receptive_samples"]) // facts["stride_samples"] + 1)
        assert ours == max(0, expected)
