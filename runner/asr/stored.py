"""Quantised models from disk: `variant.json` says which of ``runner.asr.variants`` opens the folder."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from runner.asr.pieces import Source
from runner.asr.quantise.base import Opened
from runner.registry import source as sources
from runner.registry import variant as variants
from runner.schema import discover
from runner.schema.errors import JobError, PlanError


def opened(source: Source, *, device: str) -> Opened | None:
    """The variant in ``source.folder``; None where a model lies as transformers saved it.

    Raises JobError (ModelInvalid; Infeasible for what this machine cannot run).
    """
    try:
        found = variants.read(sources.Folder(source.folder, Path(source.folder)))
    except PlanError as error:
        raise JobError(str(error), failure="ModelInvalid") from error
    if found is None:
        return None
    made: Opened = code(found.name).load(found, source, device=device)
    return made


def code(name: str) -> ModuleType:
    """The module of the variant ``name``. Raises JobError (Infeasible) where a package is not installed."""
    try:
        return discover.load(variants.PACKAGE, name)
    except ModuleNotFoundError as error:
        if error.name not in variants.OPTIONAL:
            raise
        why = f"not available here: {name} needs {error.name}, which is not installed"
        raise JobError(f"{why}: pip install {' '.join(variants.OPTIONAL)}", failure="Infeasible") from error
