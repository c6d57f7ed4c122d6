"""A CTC model from a local folder, and log-probabilities of windows. What differs between families is data."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrize
from transformers import AutoModelForCTC
from transformers.utils import logging as transformers_logging

from runner.asr import features, mixed, packed, stored
from runner.asr.features import Features
from runner.asr.pieces import Source
from runner.schema.errors import JobError

Samples = NDArray[np.float32]
LogProbs = NDArray[np.float32]  # [frames, vocab]
UNLOADABLE = (OSError, ValueError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError)
# hidden size under which threads cost more than they do: on a busy machine the quickstart's model (128) transcribed
# 20 s of audio a second with two threads, 150 to 250 with one. compute.workers is the way to use more cores
SMALL = 256


class Acoustic:
    """A loaded CTC model."""

    def __init__(self, source: Source, *, device: str, dtype: torch.dtype) -> None:
        settle_arithmetic()
        variant = stored.opened(source, device=device)
        if variant is not None:
            source, dtype = variant.source, torch.float32 if variant.settled else dtype
        self.source, self.device, self.dtype = source, device, dtype
        self.model = variant.model if variant else load_whole(source)
        fold_weight_norm(self.model)
        self.model.eval().to(device)
        if device == "cpu" and (getattr(self.model.config, "hidden_size", None) or SMALL) < SMALL:
            torch.set_num_threads(1)
        self.vocab_size: int = self.model.config.vocab_size
        self.blank: int | None = self.model.config.pad_token_id
        self._features = features_of(source)
        if dtype != torch.float32:
            mixed.hold(self.model, device)
        self.packed = packed.pack(self.model, dtype)
        together = self.packed is not None and self.packed.together
        layout = "packed" if together else "one by one" if device == "cpu" else "padded"
        self.about = {
            "layout": layout,
            "attention": str(self.model.config._attn_implementation),
            "mask": "by true length" if layout == "padded" and source.mask else "not needed",
            **(variant.about if variant else {}),
        }

    @torch.inference_mode()
    def log_probs(self, windows: Sequence[Samples]) -> list[LogProbs]:
        """Natural log-probabilities of each window, [frames, vocab] fp32, frames of padding cut off.

        Every window must hold at least ``source.receptive`` samples.
        """
        made = [self._features(window) for window in windows]
        with mixed.autocast(self.device, self.dtype):
            if self.packed:
                logits = self.packed(made)
            elif self.device == "cpu":  # two windows at once gain nothing on a CPU, and padding costs
                logits = [self.padded([one])[0] for one in made]
            else:
                logits = self.padded(made)
        return [torch.log_softmax(rows.float(), dim=-1).cpu().numpy() for rows in logits]

    def padded(self, made: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Logits of one padded batch. Without a mask only equal lengths share one: group norm would hear padding."""
        lengths = [len(one) for one in made]
        if not self.source.mask and len(set(lengths)) > 1:
            return [self.padded([one])[0] for one in made]
        batch = nn.utils.rnn.pad_sequence(list(made), batch_first=True).to(self.device)
        inputs: dict[str, torch.Tensor] = {"input_values" if self.source.waveform else "input_features": batch}
        if self.source.mask and len(set(lengths)) > 1:  # attention over equal lengths is faster without
            real = torch.arange(batch.shape[1]) < torch.tensor(lengths)[:, None]
            inputs["attention_mask"] = real.long().to(self.device)
        with warnings.catch_warnings():  # wavlm's own two masks differ in type
            warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
            logits = self.model(**inputs).logits
        return [rows[: self._frames(length)] for rows, length in zip(logits, lengths, strict=True)]

    def _frames(self, length: int) -> int:
        """Frames that ``length`` samples or feature frames give, by the model's own formula."""
        lengths = torch.tensor([length])
        if hasattr(self.model, "_get_feat_extract_output_lengths"):
            return int(self.model._get_feat_extract_output_lengths(lengths))
        encoder: Any = getattr(self.model, "encoder", None)
        if hasattr(encoder, "_get_subsampling_output_length"):
            return int(encoder._get_subsampling_output_length(lengths))
        raise JobError(
            f"{type(self.model).__name__} does not say how long its output is: padding cannot be cut off",
            failure="ModelInvalid",
        )


def settle_arithmetic() -> None:
    """Make MKL's results independent of the number of threads, so that any number of workers gives the same bytes.

    Read at MKL's first call. Measured on Cascade Lake: without it products of up to 499 rows differ between 1 and 2
    threads in the last bit; with it none do, at the same speed. Does nothing where the processor is not Intel's.
    """
    flags = torch.backends.cpu.get_cpu_capability()
    mode = {"AVX512": "AVX512,STRICT", "AVX2": "AVX2,STRICT"}.get(flags)
    if mode and torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        os.environ.setdefault("MKL_CBWR", mode)


def features_of(source: Source) -> Features:
    """From samples to what the model of ``source`` takes."""
    if source.waveform:
        return features.waveform(normalise=source.normalise)
    return features.extractor(source.folder, rate=source.rate, trust_remote_code=source.trust_remote_code)


def load_whole(source: Source) -> Any:
    """The CTC model of ``source`` as transformers saved it, in fp32, with its adapter. Raises JobError."""
    model = load(AutoModelForCTC, source, dtype=torch.float32)
    if source.adapter is not None:
        _load_adapter(model, source)
    return model


def load(auto: Any, source: Source, *, dtype: torch.dtype) -> Any:
    """The model of ``source.folder`` through one of transformers' auto classes. Raises JobError (ModelInvalid)."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # what it would warn of is checked below
    try:
        model, found = auto.from_pretrained(
            source.folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=None if source.allow_pickle else True,
            trust_remote_code=source.trust_remote_code,
            ignore_mismatched_sizes=source.adapter is not None,  # the adapter brings its own head
            output_loading_info=True,
        )
    except UNLOADABLE as error:
        raise JobError(f"{source.folder} cannot be loaded: {_why(error)}", failure="ModelInvalid") from error
    missing = sorted(key for key in found["missing_keys"] if "masked_spec_embed" not in key)
    if missing:
        raise JobError(
            f"{source.folder} lacks {len(missing)} weights that transcribing needs, such as {missing[0]!r}: "
            "is it a pretrained model without a head?",
            failure="ModelInvalid",
        )
    return model


def _why(error: Exception) -> str:
    """One line; libraries' own advice is left out where following it would be dangerous or lead nowhere."""
    text = str(error).strip()
    if isinstance(error, pickle.UnpicklingError | EOFError):
        return "its pickle weights are damaged, or hold more than weights, which is never read"
    if "ignore_mismatched_sizes" in text:
        return "config.json does not fit the weights: shapes differ"
    return (text.splitlines() or [type(error).__name__])[0]


def _load_adapter(model: Any, source: Source) -> None:
    if not hasattr(model, "load_adapter"):
        raise JobError(f"{source.folder} has no language adapters: leave model.adapter out", failure="ModelInvalid")
    try:
        model.load_adapter(source.adapter, local_files_only=True, use_safetensors=None if source.allow_pickle else True)
    except UNLOADABLE as error:
        there = sorted(p.name.split(".")[1] for p in Path(source.folder).glob("adapter.*.*"))
        raise JobError(
            f"adapter {source.adapter!r} cannot be loaded: {_why(error)}; the folder has "
            f"{', '.join(there[:20]) or 'none'}",
            failure="ModelInvalid",
        ) from error


def fold_weight_norm(model: nn.Module) -> None:
    """Compute normalised weights once: the positional convolution's cost 7 ms a call (wav2vec2-large, two threads)."""
    for module in model.modules():
        for name in list(getattr(module, "parametrizations", {})):
            parametrize.remove_parametrizations(module, name)
