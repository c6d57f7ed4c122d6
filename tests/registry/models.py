"""Tiny models on disk, made of the standard library: real headers, seeded bytes, no torch."""

from __future__ import annotations

import json
import math
import random
import struct
from pathlib import Path
from typing import Any

WIDTH = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1}
WAV2VEC2: dict[str, Any] = {
    "model_type": "wav2vec2",
    "architectures": ["Wav2Vec2ForCTC"],
    "vocab_size": 6,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "pad_token_id": 0,
    "conv_kernel": [10, 8],
    "conv_stride": [5, 4],
    "feat_extract_norm": "layer",
}
TENSORS: dict[str, tuple[str, tuple[int, ...]]] = {
    "lm_head.bias": ("F32", (6,)),
    "lm_head.weight": ("F32", (6, 8)),
    "wav2vec2.encoder.layers.0.weight": ("F32", (8, 8)),
}


def safetensors(tensors: dict[str, tuple[str, tuple[int, ...]]], *, seed: int = 0) -> bytes:
    """The bytes of a safetensors file that holds ``tensors`` (name -> dtype, shape)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * WIDTH[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + random.Random(seed).randbytes(end)


def files(config: dict[str, Any] = WAV2VEC2, tensors: dict[str, Any] = TENSORS) -> dict[str, bytes]:
    """The files of a model: config, feature extractor, vocabulary, weights."""
    vocab = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "a": 5}
    return {
        "config.json": json.dumps(config).encode(),
        "preprocessor_config.json": json.dumps({"sampling_rate": 16000, "do_normalize": True}).encode(),
        "vocab.json": json.dumps(vocab).encode(),
        "model.safetensors": safetensors(tensors),
    }


def write(folder: Path, content: dict[str, bytes]) -> Path:
    """Put ``content`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder
