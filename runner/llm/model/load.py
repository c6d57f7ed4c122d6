"""A model from its folder, whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, FineGrainedFP8Config, Mxfp4Config
from transformers.utils import logging

from runner.llm.model.quantising import COMPLAINTS, RunnerConfig
from runner.registry.family import Family
from runner.schema.errors import JobError

UNPACKED: Mapping[str | None, type[Any]] = {"mxfp4": Mxfp4Config, "fp8": FineGrainedFP8Config}
UNLOADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, SafetensorError)


def load(
    folder: Path,
    *,
    family: Family,
    dtype: torch.dtype,
    quantize: str = "none",
    quantised: str | None = None,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> Any:
    """The model with its head on ``device``, weights in ``dtype``, linear layers in the format ``quantize``.

    ``quantised`` is how the checkpoint itself is packed; MXFP4 and FP8 become ``dtype``. Raises JobError where weights
    lack or do not fit.
    """
    how = _how(quantize, quantised)
    COMPLAINTS.clear()
    if device != "cpu":
        how["device_map"] = {"": device}
    auto = AutoModelForImageTextToText if family.task == "image-text" else AutoModelForCausalLM
    try:
        with quiet():
            model, found = auto.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                **how,
            )
    except UNLOADABLE as error:
        said = " ".join("; ".join(COMPLAINTS or [str(error)]).split())[:300].rstrip(".") or type(error).__name__
        raise JobError(
            f"the model cannot be loaded: {said}; download or save it again", failure="ModelInvalid"
        ) from error
    must_be_whole(model, found)
    if quantize != "none":
        model.hf_quantizer.remove_quantization_config(model)
    vars(model).pop("hf_device_map", None)  # one device: nothing is to be dispatched
    return model


def _how(quantize: str, quantised: str | None) -> dict[str, Any]:
    if quantised is not None and quantize != "none":
        raise JobError(
            f"the weights are quantised to {quantised!r} already and cannot be rounded to {quantize!r} again: set "
            "quantize: none, or give a checkpoint in bf16",
            failure="Infeasible",
        )
    if quantize != "none":
        return {"quantization_config": RunnerConfig(format=quantize)}
    return {"quantization_config": UNPACKED[quantised](dequantize=True)} if quantised in UNPACKED else {}


def must_be_whole(model: Any, found: Mapping[str, Any]) -> None:
    """Raises JobError where transformers filled weights with random numbers."""
    missing = sorted(found["missing_keys"])
    wrong = sorted(str(entry[0]) for entry in found["mismatched_keys"])
    if not missing and not wrong:
        return
    what = f"lack {missing[0]!r}" if missing else f"have another size at {wrong[0]!r}"
    more = f" and {len(missing) + len(wrong) - 1} more" if len(missing) + len(wrong) > 1 else ""
    raise JobError(
        f"the weights are not those of a {type(model).__name__}: they {what}{more}; give a checkpoint saved with its "
        "head (AutoModelForCausalLM)",
        failure="ModelInvalid",
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars and advice: what matters is an error here."""
    shown, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(shown)
        if bars:
            logging.enable_progress_bar()
