"""`variant.json`: what a folder with a quantised model says of itself. Written by asr-quantize, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from runner.registry.source import Source
from runner.schema import discover
from runner.schema.errors import PlanError

FILE = "variant.json"
PACKAGE = "runner.asr.variants"
OPTIONAL = ("onnx", "onnxruntime")  # packages that only some of them need
VERSION = 1

Format = Literal["transformers", "quantised", "onnx"]  # as transformers saves it; safetensors in whole numbers; ONNX


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One form of a model."""

    name: str  # "int8-dynamic"
    format: Format
    weights: tuple[str, ...]  # files of the folder
    parameters: int  # of the model that it was made from
    settings: Mapping[str, Any]  # of this variant


def names() -> list[str]:
    """All variants; the folder listing is their registry."""
    return discover.names(PACKAGE)


def read(source: Source) -> Variant | None:
    """What ``source`` says of itself; None for a model as transformers saved it. Raises PlanError."""
    if FILE not in source.files:
        return None
    content = source.json(FILE)
    try:
        found = Variant(
            name=content["variant"],
            format=content["format"],
            weights=tuple(content["weights"]),
            parameters=int(content["parameters"]),
            settings=dict(content["settings"]),
        )
        known = content["version"] == VERSION and found.name in names() and found.format in get_args(Format)
    except (KeyError, TypeError, ValueError) as error:
        raise PlanError(f"model {source.name!r}: {FILE} is broken ({error!r}); make the variant again") from None
    if not known:
        raise PlanError(
            f"model {source.name!r}: {FILE} is of version {content['version']!r} and variant {found.name!r}, which are "
            f"not known here; known is version {VERSION} of {', '.join(names())}"
        )
    if missing := [file for file in found.weights if file not in source.files]:
        raise PlanError(
            f"model {source.name!r}: {FILE} names {missing[0]!r}, which is not there; make the variant again"
        )
    return found
