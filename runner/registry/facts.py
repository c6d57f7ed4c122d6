"""Facts of a model from its JSON files and the header of its weights: exact where the header says so, without torch."""

from __future__ import annotations

from typing import Any

from runner.registry.family import Family
from runner.registry.weights import Weights
from runner.schema.errors import PlanError

Fields = dict[str, Any]


def facts(family: Family, *, config: Fields, processor: Fields, weights: Weights, name: str) -> Fields:
    """What is known about a model, JSON types only. ``processor`` is its feature extractor's settings, {} if missing.

    Keys: parameters, parameters_from, weights_bytes, dtypes, vocab_size, blank_id (ctc), hidden, layers, sample_rate
    (Hz), stride_samples, stride_ms, receptive_samples, mask, feat_extract_norm, do_normalize (waveforms), normalise;
    and lacks, {what: in words}, of a model that was only pretrained.
    """
    found: Fields = {"weights_bytes": weights.size, **_parameters(config, weights)}
    found |= {fact: lookup(config, key, family) for fact, key in family.keys.items()}
    norm = lookup(config, "feat_extract_norm", family) if family.mask == "by_feat_extract_norm" else None
    stride, receptive = _frames(family, config, processor, name)
    rate = processor.get("sampling_rate", 16000)
    if not _positive(rate):
        raise PlanError(f"model {name!r}: sampling_rate must be a whole number of Hz, got {rate!r}")
    found |= {
        "sample_rate": rate,
        "stride_samples": stride,
        "stride_ms": 1000 * stride / rate,
        "receptive_samples": receptive,
        "feat_extract_norm": norm,
        "mask": norm != "group",
        "do_normalize": processor.get("do_normalize", True) if family.features == "waveform" else None,
        "normalise": family.normalise,
    }
    _check_head(family, config=config, found=found, weights=weights, name=name)
    return found


def lookup(config: Fields, key: str, family: Family) -> Any:
    """The value of the dotted ``key``, or what transformers takes when the config leaves it out."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return family.defaults.get(key) if value is None else value


def _parameters(config: Fields, weights: Weights) -> Fields:
    if weights.variant is not None:
        known = {"parameters": weights.parameters, "parameters_from": "variant.json", "dtypes": weights.dtypes}
        return {**known, "variant": weights.variant.name, "format": weights.variant.format}
    if weights.kind == "safetensors":
        return {"parameters": weights.parameters, "parameters_from": "safetensors header", "dtypes": weights.dtypes}
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    width = 2 if dtype in {"float16", "bfloat16"} else 4
    return {
        "parameters": weights.size // width,
        "parameters_from": f"estimate from the file size at {dtype}",
        "dtypes": [],
    }


def _frames(family: Family, config: Fields, processor: Fields, name: str) -> tuple[int, int]:
    """(stride, receptive field) of one model frame in samples."""
    if family.frontend == "conv":
        kernels, strides = (lookup(config, key, family) for key in ("conv_kernel", "conv_stride"))
        if not _sizes(kernels) or not _sizes(strides) or len(kernels) != len(strides):
            raise PlanError(
                f"model {name!r}: conv_kernel {kernels!r:.80} and conv_stride {strides!r:.80} must be lists of "
                "equally many positive numbers; mend config.json"
            )
        stride, receptive = 1, 1
        for kernel, step in zip(kernels, strides, strict=True):
            receptive += (kernel - 1) * stride
            stride *= step
    else:
        hop, window = processor.get("hop_length", 160), processor.get("win_length", 400)
        factor = (
            lookup(config, family.subsampling, family) if isinstance(family.subsampling, str) else family.subsampling
        )
        if not all(map(_positive, (hop, window, factor))):
            raise PlanError(
                f"model {name!r}: hop_length {hop!r}, win_length {window!r} and subsampling {factor!r} must be "
                "positive numbers; mend its JSON files"
            )
        stride, receptive = hop * factor, (family.receptive_frames - 1) * hop + window
    if config.get("add_adapter"):  # convolutions after the encoder, each with its own stride
        layers, step = (lookup(config, key, family) for key in ("num_adapter_layers", "adapter_stride"))
        stride *= step**layers
    return stride, receptive


def _positive(value: Any) -> bool:
    return type(value) is int and value > 0


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) < 100 and all(map(_positive, value))


def _check_head(family: Family, *, config: Fields, found: Fields, weights: Weights, name: str) -> None:
    listed = config.get("architectures") or []
    heads = [weights.tensors[h] for h in family.head if h in weights.tensors]
    by_name = not listed or any(a in family.architectures for a in listed)
    if (weights.tensors and not heads) or (not weights.tensors and not by_name):
        was = f" (it is a {listed[0]})" if listed and not by_name else ""
        found["lacks"] = {"head": f"no {_HEADS[family.task]}{was}"}
        found |= dict.fromkeys(found.keys() & {"vocab_size", "blank_id"})  # config.json has them from nowhere
        return
    rows = heads[0].shape[0] if heads and heads[0].shape else found["vocab_size"]
    if found["vocab_size"] not in {rows, None}:
        said = f"its head has {rows} rows but config.json says vocab_size {found['vocab_size']!r}"
        raise PlanError(f"model {name!r}: {said}; make the two agree")
    found["vocab_size"] = rows
    blank, size = found.get("blank_id"), found["vocab_size"]
    if family.task == "ctc" and not (type(blank) is int and type(size) is int and 0 <= blank < size):
        raise PlanError(
            f"model {name!r}: pad_token_id {blank!r}, the CTC blank, must be a row of its head (vocab_size {size!r}); "
            "mend config.json"
        )


_HEADS = {"ctc": "CTC head", "seq2seq": "text decoder"}
