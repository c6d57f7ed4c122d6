"""The model that is trained: loaded or made, its head fitted to the characters, what is frozen, and how it is saved."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from torch import nn
from transformers import AutoConfig, AutoModelForCTC, Wav2Vec2Config, Wav2Vec2ForCTC
from transformers.utils import logging as transformers_logging

from runner.asr.acoustic import UNLOADABLE
from runner.asr.pieces import Source
from runner.asr.training.recipe import Lora, Masks
from runner.asr.training.spelling import END, SPECIAL, START, write_json
from runner.schema.errors import JobError

RATE = 16000  # Hz, of models made here
PROCESSOR: Mapping[str, Any] = {
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "processor_class": "Wav2Vec2Processor",
    "feature_size": 1,
    "sampling_rate": RATE,
    "padding_side": "right",
    "padding_value": 0.0,
    "do_normalize": True,
    "return_attention_mask": True,
}
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json", "feature_extractor_config.json")
TOKENIZER_FILES = (
    "vocab.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
)
ENDS = (SPECIAL.index(START), SPECIAL.index(END))
ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj", "linear_q", "linear_k", "linear_v", "linear_out")
FEED_FORWARD = ("intermediate_dense", "output_dense")
ONE_CALL = frozenset({"wavlm"})  # attention takes its weights by themselves, so what stands beside them is not heard


@dataclass(frozen=True, kw_only=True)
class Dropouts:
    """Shares of values and of layers left out while training."""

    values: float
    layers: float


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A wav2vec 2.0 model to make; every convolution has a LayerNorm, so padding disturbs nothing."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    conv_channels: Sequence[int]
    conv_kernels: Sequence[int]
    conv_strides: Sequence[int]
    position_kernel: int
    position_groups: int

    @property
    def stride(self) -> int:
        """Samples of one frame."""
        return math.prod(self.conv_strides)

    @property
    def receptive(self) -> int:
        """Samples that one frame sees before attention."""
        seen, stride = 1, 1
        for kernel, step in zip(self.conv_kernels, self.conv_strides, strict=True):
            seen += (kernel - 1) * stride
            stride *= step
        return seen


def made(wanted: Architecture, *, vocabulary: int, masks: Masks, dropouts: Dropouts) -> Any:
    """A model with random weights, drawn from torch's generator."""
    config = Wav2Vec2Config(
        hidden_size=wanted.hidden,
        num_hidden_layers=wanted.layers,
        num_attention_heads=wanted.heads,
        intermediate_size=wanted.feed_forward,
        conv_dim=list(wanted.conv_channels),
        conv_kernel=list(wanted.conv_kernels),
        conv_stride=list(wanted.conv_strides),
        num_conv_pos_embeddings=wanted.position_kernel,
        num_conv_pos_embedding_groups=wanted.position_groups,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
        vocab_size=vocabulary,
    )
    _set(config, masks, dropouts)
    return Wav2Vec2ForCTC(config)


def loaded(source: Source, *, masks: Masks, dropouts: Dropouts) -> tuple[Any, bool]:
    """The model of a folder in fp32, and whether its head was trained. Raises JobError (ModelInvalid)."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # weights that are missing are looked at below
    try:
        config = AutoConfig.from_pretrained(
            source.folder, local_files_only=True, trust_remote_code=source.trust_remote_code
        )
        _set(config, masks, dropouts)
        model, found = AutoModelForCTC.from_pretrained(
            source.folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=None if source.allow_pickle else True,
            trust_remote_code=source.trust_remote_code,
            ignore_mismatched_sizes=source.adapter is not None,
            output_loading_info=True,
        )
        if source.adapter is not None:
            safe = None if source.allow_pickle else True
            model.load_adapter(source.adapter, local_files_only=True, use_safetensors=safe)
    except UNLOADABLE as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise JobError(f"{source.folder} cannot be loaded: {why}", failure="ModelInvalid") from error
    missing = {key for key in found["missing_keys"] if "masked_spec_embed" not in key}
    headless = {key for key in missing if key.startswith("lm_head.")}
    if missing - headless:
        raise JobError(
            f"{source.folder} lacks {len(missing - headless)} weights, such as {min(missing - headless)!r}",
            failure="ModelInvalid",
        )
    if not isinstance(getattr(model, "lm_head", None), nn.Linear):
        raise JobError(f"a {config.model_type} model has no head of characters to train", failure="ModelInvalid")
    return model, not headless


def _set(config: Any, masks: Masks, dropouts: Dropouts) -> None:
    """What the training decides. A loss that is a sum, or an infinite one, is how most fine-tunings are lost."""
    config.ctc_loss_reduction = "mean"
    config.ctc_zero_infinity = True
    config.apply_spec_augment = masks.time > 0 or masks.feature > 0
    if config.apply_spec_augment:
        config.mask_time_min_masks = 0  # transformers' 2 would hide a third of a clip of one second, whatever the share
        config.mask_time_prob, config.mask_time_length = masks.time, masks.time_frames
        config.mask_feature_prob = masks.feature
        config.mask_feature_length = min(masks.feature_width, config.hidden_size)
        config.mask_feature_min_masks = getattr(config, "mask_feature_min_masks", 0)  # WavLM's has none, and needs it
    for name in ("attention", "hidden", "activation", "feat_proj", "final"):
        setattr(config, f"{name}_dropout", dropouts.values)
    config.layerdrop = dropouts.layers


def fit_head(model: Any, rows: Mapping[int, int], *, size: int, blank: int) -> None:
    """Give the head ``size`` rows: those of ``rows`` (new id -> old id) as they were, the others newly drawn."""
    old: nn.Linear = model.lm_head
    new = nn.Linear(old.in_features, size)
    with torch.no_grad():
        new.weight.normal_(0.0, getattr(model.config, "initializer_range", 0.02))
        new.bias.zero_()
        for row, before in rows.items():
            new.weight[row], new.bias[row] = old.weight[before], old.bias[before]
    model.lm_head = new
    model.config.vocab_size = size
    model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id = blank, *ENDS


def heard(model: Any, inputs: dict[str, torch.Tensor]) -> Any:
    """The model's answer to a batch: loss and logits."""
    with warnings.catch_warnings():  # wavlm's own two masks differ in type
        warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
        return model(**inputs)


def clamp_masks(model: Any, *, frames: int) -> None:
    """Before each forward, shorten time masks to the batch: a clip shorter than one mask stops transformers.

    ``frames`` is the length asked for; the model's config carries it again when it is saved (``session.save``).
    """

    def clamp(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mask = kwargs["attention_mask"]
        longest = int(model._get_feat_extract_output_lengths(mask.sum(-1).max()))
        model.config.mask_time_length = max(1, min(frames, longest))

    model.register_forward_pre_hook(clamp, with_kwargs=True)


def has_convolutions(model: Any) -> bool:
    """Whether samples become frames by learned convolutions; a mel front end has none to freeze."""
    return hasattr(model.base_model, "feature_extractor")


def add_lora(model: Any, wanted: Lora) -> LoraModel:
    """Put LoRA beside the encoder's linear layers, in place: only it and the head are trained."""
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    adapted = FEED_FORWARD if model.config.model_type in ONE_CALL else (*ATTENTION, *FEED_FORWARD)
    layers = [name for name in adapted if name in names]
    config = LoraConfig(
        r=wanted.r,
        lora_alpha=wanted.alpha,  # type: ignore[arg-type]  # it is only divided by r
        lora_dropout=wanted.dropout,
        target_modules=layers,
    )
    tuner = LoraModel(model, config, "default")
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_" in name or name.startswith("lm_head.")
    return tuner


def save(model: Any, folder: Path, *, base: Source | None) -> None:
    """Weights and configuration as safetensors, and the processor of ``base``, or that of models made here."""
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # it is written as 0600
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)  # a folder of this machine
    write_json(folder / "config.json", dict(sorted(config.items())))
    if base is not None and copy(Path(base.folder), folder, PROCESSOR_FILES):
        return
    heard = {} if base is None else {"do_normalize": base.normalise, "return_attention_mask": base.mask}
    if base is None or base.waveform:
        write_json(folder / "preprocessor_config.json", {**PROCESSOR, **heard})


def copy(base: Path, folder: Path, names: Sequence[str]) -> list[str]:
    """Those of ``names`` that are in ``base``."""
    found = [name for name in names if (base / name).is_file()]
    for name in found:
        shutil.copyfile(base / name, folder / name)
    return found
