"""A tiny seeded Whisper with all the files of a real one. It says nothing sensible, but what it hears counts."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

SPECIAL = ("endoftext", "startoftranscript", "en", "ja", "pt", "translate", "transcribe", "notimestamps")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WRITES = {*LETTERS.encode(), 0xC3, 0xA3}  # the bytes that it may write by themselves: letters, and the two of ã
END = 256 + len(LETTERS)  # between them a letter after a space, 26 tokens
MOST = 40  # tokens, prompt included


def save(folder: Path, *, multilingual: bool = True, heads: bool = True, seed: int = 0) -> Path:
    """Write model, tokenizer, feature extractor and generation settings."""
    vocabulary = {symbol: byte for byte, symbol in bytes_to_unicode().items()}
    vocabulary |= {f"Ġ{letter}": 256 + at for at, letter in enumerate(LETTERS)}
    ids = {name: END + at for at, name in enumerate(SPECIAL)}
    vocabulary |= {f"<|{name}|>": id_ for name, id_ in ids.items()}
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{name}|>" for name in SPECIAL]})
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=END + len(SPECIAL) + 1501,
        num_mel_bins=80,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_target_positions=MOST,
        init_std=0.4,
        pad_token_id=END,
        bos_token_id=END,
        eos_token_id=END,
        decoder_start_token_id=ids["startoftranscript"],
        begin_suppress_tokens=None,
        suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config).eval()
    silent = [byte for byte in range(256) if byte not in WRITES]
    with torch.no_grad():
        for layer in model.get_decoder().layers:  # look somewhere, not everywhere
            layer.encoder_attn.q_proj.weight.mul_(4)
    model.generation_config = GenerationConfig(
        suppress_tokens=[*silent, *range(END + 1, END + len(SPECIAL))],
        begin_suppress_tokens=[END],
        is_multilingual=multilingual,
        max_length=MOST,
        no_timestamps_token_id=ids["notimestamps"],
        decoder_start_token_id=ids["startoftranscript"],
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
        **({"lang_to_id": {f"<|{n}|>": ids[n] for n in ("en", "ja", "pt")}} if multilingual else {}),
        **({"task_to_id": {n: ids[n] for n in ("translate", "transcribe")}} if multilingual else {}),
        **({"alignment_heads": [[1, 0], [1, 3], [0, 2]]} if heads else {}),
    )
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=80), tokenizer).save_pretrained(folder)
    return folder
