"""From samples to what a model takes: normalised samples, or a mel spectrogram by the model's own feature extractor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from runner.schema.errors import JobError

Samples = NDArray[np.float32]
Features = Callable[[Samples], torch.Tensor]


def waveform(*, normalise: bool) -> Features:
    """Raw samples, [samples]; with ``normalise`` to zero mean and unit variance, as Wav2Vec2FeatureExtractor does.

    Each window for itself: a window of a long recording gets what the same stretch as a file of its own would get.
    """

    def features(samples: Samples) -> torch.Tensor:
        if normalise:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        return torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))

    return features


def extractor(folder: str, *, rate: int, trust_remote_code: bool = False) -> Features:
    """The model folder's feature extractor as a function from samples to [frames, bins], padding cut off.

    Raises JobError (ModelInvalid) when the folder has none that can be used.
    """
    settings = _settings(Path(folder))
    if settings.get("feature_extractor_type") == "ParakeetFeatureExtractor":
        return _parakeet(settings, rate=rate)
    try:
        extract: Any = AutoFeatureExtractor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise JobError(f"{folder} has no usable feature extractor: {reason}", failure="ModelInvalid") from None

    def features(samples: Samples) -> torch.Tensor:
        made = extract(samples, sampling_rate=rate, return_tensors="pt", return_attention_mask=True)
        values: torch.Tensor = made["input_features"][0]
        return values[: int(made["attention_mask"].sum())]

    return features


def _settings(folder: Path) -> dict[str, Any]:
    """The feature extractor's settings, wherever this version of transformers kept them."""
    for name, key in (("processor_config.json", "feature_extractor"), ("preprocessor_config.json", None)):
        if (folder / name).is_file():
            content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
            found = content.get(key) if key else content
            if isinstance(found, dict):
                return found
    return {}


def _parakeet(settings: dict[str, Any], *, rate: int) -> Features:
    """Log-mel as NVIDIA NeMo makes it, each bin normalised over the window's valid frames.

    Written out because transformers' own class needs librosa, only for this filter bank. Pre-emphasis, a power
    spectrogram of centred Hann windows, Slaney mel, log with a guard of 2^-24, mean and unbiased deviation.
    """
    hop, width, fft = (settings.get(k, v) for k, v in (("hop_length", 160), ("win_length", 400), ("n_fft", 512)))
    bank = mel_filter_bank(
        num_frequency_bins=fft // 2 + 1,
        num_mel_filters=settings.get("feature_size", 80),
        min_frequency=0.0,
        max_frequency=rate / 2,
        sampling_rate=rate,
        norm="slaney",
        mel_scale="slaney",
    )
    mel = torch.from_numpy(bank.astype(np.float32))
    hann = torch.hann_window(width, periodic=False)
    emphasis = settings.get("preemphasis", 0.97)

    def features(samples: Samples) -> torch.Tensor:
        x = torch.from_numpy(np.array(samples, dtype=np.float32))
        if emphasis is not None:
            x = torch.cat((x[:1], x[1:] - emphasis * x[:-1]))
        spectrum = torch.stft(
            x, fft, hop_length=hop, win_length=width, window=hann, return_complex=True, pad_mode="constant"
        )
        logs = torch.log(spectrum.abs().square().T @ mel + 2**-24)[: len(samples) // hop]
        return (logs - logs.mean(dim=0)) / (logs.std(dim=0) + 1e-5)

    return features
