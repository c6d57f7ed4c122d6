"""Which files hold the weights, and what their headers say. safetensors; pickle only on request."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from runner.registry import variant as variants
from runner.registry.safetensors_header import BITS, Tensor
from runner.registry.source import Source
from runner.registry.variant import Variant
from runner.schema.errors import PlanError

SINGLE = {"safetensors": "model.safetensors", "pickle": "pytorch_model.bin"}
FOREIGN = (".bin", ".pt", ".pth", ".ckpt", ".nemo", ".h5", ".msgpack", ".onnx", ".gguf", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weight files of a model; ``tensors`` is empty for pickle and ONNX, which are never opened here."""

    kind: Literal["safetensors", "pickle", "onnx"]
    files: tuple[str, ...]
    size: int  # bytes
    tensors: dict[str, Tensor]
    variant: Variant | None = None  # of a quantised model: what `variant.json` says

    @property
    def parameters(self) -> int:
        if self.variant is not None:
            return self.variant.parameters
        return sum(t.elements for t in self.tensors.values())

    @property
    def dtypes(self) -> list[str]:
        return sorted({t.dtype for t in self.tensors.values()}, key=lambda d: (-BITS[d], d))


def find(source: Source, *, allow_pickle: bool) -> Weights:
    """The weights of ``source``: safetensors before pickle; raises PlanError when there are none that may be read."""
    if variant := variants.read(source):
        files = tuple(variant.weights)
        tensors = {} if variant.format == "onnx" else _tensors(source, files)
        kind: Literal["safetensors", "onnx"] = "onnx" if variant.format == "onnx" else "safetensors"
        return Weights(kind=kind, files=files, size=_size(source, files), tensors=tensors, variant=variant)
    if files := _files(source, SINGLE["safetensors"]):
        return Weights(kind="safetensors", files=files, size=_size(source, files), tensors=_tensors(source, files))
    if files := _files(source, SINGLE["pickle"]):
        if allow_pickle:
            return Weights(kind="pickle", files=files, size=_size(source, files), tensors={})
        raise PlanError(
            f"model {source.name!r} has its weights only as pickle ({files[-1]}), which can run code when it is read; "
            "set model.allow_pickle: true to read it with weights-only loading, or convert it to model.safetensors"
        )
    other = [f for f in source.files if f.endswith(FOREIGN)]
    found = f"found {', '.join(map(repr, other[:5]))}" if other else "found no weights at all"
    raise PlanError(f"model {source.name!r} has no model.safetensors ({found}); save it with save_pretrained")


def adapter(source: Source, language: str, *, allow_pickle: bool) -> Weights:
    """The adapter of ``language`` (MMS); raises PlanError with the nearest languages when there is none."""
    for kind, suffix in (("safetensors", "safetensors"), ("pickle", "bin")):
        path = f"adapter.{language}.{suffix}"
        if path in source.files and (kind == "safetensors" or allow_pickle):
            tensors = _tensors(source, (path,)) if kind == "safetensors" else {}
            return Weights(kind=kind, files=(path,), size=source.files[path], tensors=tensors)  # type: ignore[arg-type]  # the loop's literals
    known = languages(source)
    near = difflib.get_close_matches(language, known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(map(repr, near))}? " if near else ""
    raise PlanError(
        f"model {source.name!r} has no adapter.{language}.safetensors for model.adapter {language!r}; "
        f"{hint}{len(known)} languages are there"
    )


def languages(source: Source) -> list[str]:
    """Languages that ``source`` has a safetensors adapter for, sorted."""
    return sorted(
        f.removeprefix("adapter.").removesuffix(".safetensors")
        for f in source.files
        if f.startswith("adapter.") and f.endswith(".safetensors")
    )


def _files(source: Source, single: str) -> tuple[str, ...]:
    if single in source.files:
        return (single,)
    index = f"{single}.index.json"
    if index not in source.files:
        return ()
    shards = source.json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()) or not shards:
        raise PlanError(f"model {source.name!r}: {index} has no weight_map from tensors to files; save the model again")
    names = sorted(set(shards.values()))
    if missing := [s for s in names if s not in source.files]:
        raise PlanError(
            f"model {source.name!r}: {index} names {missing[0]!r}, which is not there; download or save it again"
        )
    return (index, *names)


def _size(source: Source, files: tuple[str, ...]) -> int:
    return sum(source.files[f] for f in files if not f.endswith(".json"))


def _tensors(source: Source, files: tuple[str, ...]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in files:
        if not file.endswith(".json"):
            found |= source.header(file).tensors
    return found
