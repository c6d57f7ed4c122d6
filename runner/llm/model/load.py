"""A model from its folder, whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.utils import logging

from runner.registry.family import Family
from runner.schema.errors import JobError

UNLOADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, SafetensorError)


def load(folder: Path, *, family: Family, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    """The model with its head on the CPU, weights in ``dtype``. Raises JobError where weights lack or do not fit."""
    auto = AutoModelForImageTextToText if family.task == "image-text" else AutoModelForCausalLM
    try:
        with quiet():
            model, found = auto.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
    except UNLOADABLE as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise JobError(
            f"the model cannot be loaded: {said}; download or save it again", failure="ModelInvalid"
        ) from error
    must_be_whole(model, found)
    return model


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
