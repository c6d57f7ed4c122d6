"""`Family`: what a model is and what can be asked of it, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from runner.registry.language import Language

# of the wav2vec2 line, whose configs share their names and their defaults
KEYS: Mapping[str, str] = {
    "vocab_size": "vocab_size",
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "blank_id": "pad_token_id",
}
DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "feat_extract_norm": "group",
    "num_adapter_layers": 3,
    "adapter_stride": 2,
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """A registry entry. One instance named ``FAMILY`` per file of ``registry/families/``."""

    name: str
    title: str  # one line for people
    model_types: tuple[str, ...]  # config.model_type values: the first way to recognise it
    architectures: tuple[str, ...]  # config.architectures that it can be used through
    name_pattern: str  # regex on the id, a hint only, used before a config is at hand
    task: Literal["ctc", "seq2seq", "causal", "image-text", "encoder"]
    features: Literal["waveform", "features", "tokens"]  # raw samples, features made by the processor, or token ids
    mask: Literal["always", "by_feat_extract_norm"] = "always"  # whether batches carry one; "group" norm never does
    normalise: str = ""  # of speech, in words, for `models resolve`
    language: Language | None = None  # what only models of text have
    languages: str = ""  # e.g. "adapters by ISO 639-3 code"
    limits: tuple[str, ...] = ()  # what is known not to work
    head: tuple[str, ...] = ("lm_head.weight",)  # tensors, any of which shows that the weights can transcribe
    structure: str = ""  # config key which, when set, picks this family among those with the same model_type
    keys: Mapping[str, str] = field(default_factory=lambda: KEYS)  # fact -> dotted key of the config
    defaults: Mapping[str, Any] = field(default_factory=lambda: DEFAULTS)  # what transformers takes for keys left out
    frontend: Literal["conv", "mel"] = "conv"  # how samples become frames: learned convolutions, or a mel spectrogram
    subsampling: str | int = 1  # mel frames per model frame: a number, or the dotted config key that holds it
    receptive_frames: int = 1  # mel frames that one model frame sees before attention

    @property
    def adapters(self) -> bool:
        """Whether an adapter for each language may lie beside its weights."""
        return self.language is None and bool(self.structure)


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
    weights: Literal["safetensors", "pickle", "onnx"]
    files: tuple[tuple[str, int], ...]  # (path, bytes) of the files that would be read

    @property
    def lack(self) -> str | None:
        """What keeps it from giving texts, and what to do about it; None for a model that can."""
        lacks: Mapping[str, str] = self.facts.get("lacks", {})
        if not lacks:
            return None
        head = f"give a checkpoint of {self.family.architectures[0]} with {' or '.join(self.family.head)}"
        kept = "processor" if self.family.language is None else "tokenizer"
        hint = head if "head" in lacks else f"save its {kept} beside it"
        if self.family.task == "ctc":
            hint += ", or fine-tune this one (asr-finetune with vocabulary: {source: build})"
        return f"it has {' and '.join(lacks.values())}; {hint}"
