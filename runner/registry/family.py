"""`Family`: what a model is and what can be asked of it, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Family:
    """A registry entry. One instance named ``FAMILY`` per file of ``registry/families/``."""

    name: str
    title: str  # one line for people
    model_types: tuple[str, ...]  # config.model_type values: the first way to recognise it
    architectures: tuple[str, ...]  # config.architectures that it can be used through
    name_pattern: str  # regex on the id, a hint only, used before a config is at hand
    kinds: tuple[str, ...]  # kinds of job it can serve, e.g. ("asr-transcribe",)
    task: Literal["ctc", "seq2seq"]
    features: Literal["waveform", "features"]  # raw samples, or features made by the processor
    mask: Literal["always", "by_feat_extract_norm"]  # whether batches carry an attention mask; "group" norm never does
    normalise: str  # in words, for `models resolve`
    languages: str = ""  # e.g. "adapters by ISO 639-3 code"
    limits: tuple[str, ...] = ()  # what is known not to work


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What a model id or folder turned out to be."""

    family: Family
    model_type: str
    source: Literal["path", "hub"]
    ref: str  # "./model" as given, or "hf:owner/name@<commit>"
    commit: str | None
    path: str | None  # local folder; None when the hub model is not downloaded yet
    config: dict[str, Any]
    facts: dict[str, Any]  # params, vocab_size, hidden, layers, stride_ms, sample_rate, weights_bytes ...
    weights: Literal["safetensors", "pickle"]
    files: tuple[tuple[str, int], ...]  # (path, bytes) of the files that would be read
