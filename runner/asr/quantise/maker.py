"""The worker that makes variants: loads the model once, writes one folder for each."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from runner.asr import stored
from runner.asr.acoustic import features_of, fold_weight_norm, load_whole, settle_arithmetic
from runner.asr.halving import out_of_memory
from runner.asr.pieces import Piece, Source
from runner.asr.quantise.base import Base, Made
from runner.asr.quantise.hearing import heard
from runner.registry import variant as variants
from runner.registry.resolve import SIDE_FILES
from runner.schema.errors import FailureClass, JobError

Fields = dict[str, Any]
NOT_HERE: FailureClass = "Infeasible"


@dataclass(frozen=True, kw_only=True)
class Making:
    """What a worker must know."""

    source: Source  # the unquantised model
    parameters: int
    threads: int
    group: int
    calibration: Sequence[Piece]  # windows
    folder: Path  # variants go into folders below it


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of one variant."""

    name: str
    status: str  # "ok", "not available here", "failed"
    why: str = ""
    what: str = ""
    bytes: int = 0  # of its weights
    parity: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0  # that it took


class Maker:
    """Called with the name of a variant."""

    def __init__(self, making: Making) -> None:
        settle_arithmetic()
        torch.set_num_threads(making.threads)
        self._making = making

    def __call__(self, item: str) -> Done:
        began = time.perf_counter()
        folder = self._making.folder / item
        shutil.rmtree(folder, ignore_errors=True)  # half of one, by an attempt that was killed
        fresh = self._making.folder / f"{item}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        base = self._base
        _copy_sides(self._making.source, base.model.config, fresh)
        try:
            variant = stored.code(item)
            made: Made = variant.quantise(base, fresh)
        except Exception as error:
            if isinstance(error, OSError | SafetensorError) or out_of_memory(error):
                raise  # of the machine, not of this variant
            shutil.rmtree(fresh)
            return _undone(item, error)
        _describe(fresh, item, made, what=variant.WHAT, parameters=self._making.parameters)
        fresh.rename(folder)
        return Done(
            name=item,
            status="ok",
            what=variant.WHAT,
            bytes=sum((folder / file).stat().st_size for file in made.weights),
            parity=made.parity,
            seconds=time.perf_counter() - began,
        )

    @cached_property
    def _base(self) -> Base:
        source = self._making.source
        return Base(
            model=load_whole(source).eval(),
            folded=lambda: self._folded,
            features=features_of(source),
            rate=source.rate,
            group=self._making.group,
            calibration=self._heard,
        )

    @cached_property
    def _folded(self) -> Any:
        model = load_whole(self._making.source).eval()  # a copy would share the class that folding changes
        fold_weight_norm(model)
        return model

    def _heard(self) -> list[torch.Tensor]:
        sounds = heard(self._making.calibration, self._making.source, purpose="calibrate with")
        return [self._base.features(one) for one in sounds]


def _undone(name: str, error: Exception) -> Done:
    """What is said of a variant that could not be made; the others are still of use."""
    if not isinstance(error, JobError):  # a surprise of the exporter or of ONNX Runtime: some fill pages
        first_line = str(error).strip().partition("\n")[0][:300]
        return Done(name=name, status="failed", why=f"{type(error).__name__}: {first_line or 'no reason given'}")
    return Done(name=name, status="not available here" if error.failure == NOT_HERE else "failed", why=str(error))


def _copy_sides(source: Source, config: Any, folder: Path) -> None:
    """All that a model needs beside its weights. A language adapter is part of the weights now."""
    given = Path(source.folder)
    for name in SIDE_FILES:
        if (given / name).is_file() and name not in {"config.json", variants.FILE}:
            shutil.copy(given / name, folder / name)
    if source.adapter is not None:
        file = folder / "tokenizer_config.json"
        settings = json.loads(file.read_text("utf-8")) if file.exists() else {}
        file.write_text(json.dumps({**settings, "target_lang": source.adapter}, ensure_ascii=False, indent=1), "utf-8")
    config.save_pretrained(folder)


def _describe(folder: Path, name: str, made: Made, *, what: str, parameters: int) -> None:
    content = {
        "version": variants.VERSION,
        "variant": name,
        "what": what,
        "format": made.format,
        "weights": made.weights,
        "parameters": parameters,
        "settings": made.settings,
    }
    (folder / variants.FILE).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")
