"""Tiny seeded models of every family, as transformers saves them, and sound to put through them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

SYMBOLS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz", "ã"]
SMALL: dict[str, Any] = {
    "vocab_size": len(SYMBOLS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONV: dict[str, Any] = {
    "conv_dim": (16, 16, 24),
    "conv_kernel": (10, 8, 8),
    "conv_stride": (5, 8, 8),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
PARAKEET: dict[str, Any] = {
    "vocab_size": len(SYMBOLS) + 1,
    "pad_token_id": len(SYMBOLS),
    "encoder_config": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 48,
        "subsampling_conv_channels": 8,
        "num_mel_bins": 80,
    },
}
# name of the test case -> (model class, config class, config)
CTC: dict[str, tuple[str, str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2ForCTC", "Wav2Vec2Config", SMALL | CONV),
    "wav2vec2-group": (
        "Wav2Vec2ForCTC",
        "Wav2Vec2Config",
        SMALL | CONV | {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False},
    ),
    "mms": ("Wav2Vec2ForCTC", "Wav2Vec2Config", SMALL | CONV | {"adapter_attn_dim": 4}),
    "hubert": ("HubertForCTC", "HubertConfig", SMALL | CONV),
    "wavlm": ("WavLMForCTC", "WavLMConfig", SMALL | CONV),
    "data2vec-audio": ("Data2VecAudioForCTC", "Data2VecAudioConfig", SMALL | CONV),
    "wav2vec2-bert": ("Wav2Vec2BertForCTC", "Wav2Vec2BertConfig", SMALL),
    "parakeet-ctc": ("ParakeetForCTC", "ParakeetCTCConfig", PARAKEET),
}
PROCESSORS: dict[str, dict[str, Any]] = {
    "wav2vec2-bert": {"feature_extractor_type": "SeamlessM4TFeatureExtractor", "stride": 2, "num_mel_bins": 80},
    "parakeet-ctc": {"feature_extractor_type": "ParakeetFeatureExtractor", "hop_length": 160, "win_length": 400},
}
WAVEFORM = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True, "return_attention_mask": True}


def ctc(folder: Path, name: str, *, seed: int = 0) -> Path:
    """Save the model ``name`` of ``CTC``; its output is sharp, so that texts mean something."""
    model_class, config_class, config = CTC[name]
    torch.manual_seed(seed)
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        _sharpen(model, model.ctc_head if name == "parakeet-ctc" else model.lm_head)
    model.save_pretrained(folder)
    write_json(folder / "preprocessor_config.json", {"sampling_rate": 16000, **PROCESSORS.get(name, WAVEFORM)})
    if name == "parakeet-ctc":
        pieces = {s if i % 3 else f"▁{s}": i for i, s in enumerate(SYMBOLS)}
        added = [{"id": len(SYMBOLS), "content": "<pad>", "special": True}]
        write_json(folder / "tokenizer.json", {"model": {"type": "BPE", "vocab": pieces}, "added_tokens": added})
        write_json(folder / "tokenizer_config.json", {"pad_token": "<pad>"})
    else:
        vocab = {symbol: i for i, symbol in enumerate(SYMBOLS)}
        write_json(folder / "vocab.json", {"por": vocab} if name == "mms" else vocab)
        language = {"target_lang": "por"} if name == "mms" else {}
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": "Wav2Vec2CTCTokenizer", **language})
    return folder


def _sharpen(model: Any, head: Any) -> None:
    """Make the output change with the sound: each symbol's score gets mean 0 and deviation 5 over a test sound."""
    if model.main_input_name == "input_values":
        x = torch.from_numpy(sound(4.0, seed=99))[None]
        scores = model((x - x.mean()) / x.std()).logits[0]
    else:
        bins = 160 if model.config.model_type == "wav2vec2-bert" else 80
        scores = model(input_features=torch.randn(1, 400, bins)).logits[0]
    weight, bias = head.weight, head.bias
    scale = 5 / scores.std(dim=0)
    bias.copy_((bias - scores.mean(dim=0)) * scale)
    weight.mul_(scale.view(-1, *[1] * (weight.ndim - 1)))


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def sound(seconds: float, *, seed: int = 0, rate: int = 16000) -> NDArray[np.float32]:
    """Something with pitch, rhythm and noise. [samples]."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitch = 110 * 2 ** random.uniform(0, 2)
    tone = sum(np.sin(2 * np.pi * pitch * k * t + random.uniform(0, 6)) / k for k in range(1, 8))
    rhythm = 0.55 + 0.45 * np.sin(2 * np.pi * random.uniform(2, 5) * t)
    return (0.1 * rhythm * tone + 0.01 * random.standard_normal(len(t))).astype(np.float32)
