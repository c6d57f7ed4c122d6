"""`asr-quantize`: smaller and faster forms of a CTC model, each measured, one of them picked."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from runner.schema.batch import Batch
from runner.schema.block import Block
from runner.schema.job import Job
from runner.schema.marks import BLOCK, MANIFEST, NEUTRAL, RESULT
from runner.schema.model import Model
from runner.schema.reference import checked
from runner.schema.text import Text
from runner.schema.window import Window

Variant = Literal[
    "fp16",
    "bf16",
    "int8-dynamic",
    "int8-static",
    "int8-weights",
    "int4-weights",
    "onnx-fp32",
    "onnx-fp16",
    "onnx-int8",
    "tensorrt",
]
Table = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(checked)]


class QuantizeData(Block):
    """Recordings to measure on, and to calibrate with."""

    validation: Annotated[Table, MANIFEST, Field(examples=["validation.jsonl"])]
    """What every variant is measured on: a table as in `asr-transcribe`, with texts. Rows without one only count for
    speed."""

    calibration: Annotated[Table | None, MANIFEST] = None
    """What `int8-static` takes its scales from, texts not needed; left out: the validation data, and the report says
    so."""

    root: Annotated[str | None, RESULT, Field(min_length=1, max_length=4096)] = None
    """Folder that the audio paths of both tables are relative to; left out: each table's own folder, or the spec's for
    a table out of an artifact."""


class QuantizeAudio(Block):
    """How a recording becomes one signal."""

    channels: Annotated[Literal["mix", "left", "right"], RESULT] = "mix"
    """`mix` averages the channels, `left` and `right` take one."""

    silence_db: Annotated[float, RESULT, Field(ge=-120, le=0)] = -60.0
    """Energy floor in dB below full scale: frames quieter than this are silence and yield no letters."""


class Calibration(Block):
    """How much `int8-static` hears before it sets its scales."""

    recordings: Annotated[int, RESULT, Field(ge=1, le=10000)] = 32
    """Recordings heard, evenly spread over the table; of long ones the first window."""


class Int4(Block):
    """How `int4-weights` rounds."""

    group_size: Annotated[Literal[16, 32, 64, 128], RESULT] = 32
    """Weights that share a scale: fewer are more exact and take more room (32: 4.5 bits a weight, 128: 4.1)."""


class Speed(Block):
    """How speed is measured: one recording after another, in turns with the unquantised model. The window of each
    turn that took the least time counts for the speed-up."""

    recordings: Annotated[int, NEUTRAL, Field(ge=1, le=10000)] = 12
    """Recordings timed, evenly spread over their lengths; of long ones the first window."""

    rounds: Annotated[int, NEUTRAL, Field(ge=1, le=100)] = 3
    """Times that each of them is timed."""


class QuantizeGates(Block):
    """Limits of the pick, and conditions that the artifact must meet to be published. They decide which variant is
    picked, so a changed limit is another job."""

    max_wer_rise: Annotated[float | None, RESULT, Field(ge=-1, le=10)] = None
    """Most that the word error rate may rise over the unquantised model's, absolute (0.01 is one point)."""

    min_compression: Annotated[float | None, RESULT, Field(ge=0, le=100)] = None
    """Least times that the weights must be smaller than the unquantised model's file."""

    min_speedup: Annotated[float | None, RESULT, Field(ge=0, le=1000)] = None
    """Least times that transcribing must be faster than plain transformers with the unquantised model in fp32, one
    recording at a time, on the machine of the run."""


class AsrQuantize(Job):
    """Make smaller and faster variants of a CTC model, measure each, pick one."""

    tasks = ("ctc",)
    code_version = 2

    kind: Annotated[Literal["asr-quantize"], RESULT]
    """What this spec is."""

    model: Annotated[Model, BLOCK]
    """The unquantised model."""

    data: Annotated[QuantizeData, BLOCK]
    """Recordings to measure on, and to calibrate with."""

    variants: Annotated[list[Variant], RESULT, Field(min_length=1)] = [  # noqa: RUF012 (pydantic copies it)
        "fp16",
        "int8-dynamic",
        "int4-weights",
        "onnx-int8",
    ]
    """What to make. Each can be used as `artifact:NAME#variant`."""

    pick: Annotated[Literal["smallest", "fastest", "most_accurate"], RESULT] = "smallest"
    """Which of the variants that meet the gates becomes the artifact's model, `artifact:NAME`."""

    int4: Annotated[Int4, BLOCK] = Int4()
    """How `int4-weights` rounds."""

    calibration: Annotated[Calibration, BLOCK] = Calibration()
    """How much `int8-static` hears before it sets its scales."""

    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], RESULT] = "auto"
    """Number format that variants without one of their own are measured in: `auto` is bf16 where the device computes in
    it natively, otherwise fp32. The unquantised model is measured in fp32."""

    audio: Annotated[QuantizeAudio, BLOCK] = QuantizeAudio()
    """How a recording becomes one signal."""

    text: Annotated[Text | None, BLOCK] = None
    """How the texts of `data.validation` are written before they are compared with: with this block `22` is `vinte e
    dois`, as models that `asr-finetune` makes write it. Left out: digits stay digits."""

    window: Annotated[Window, BLOCK] = Window()
    """How long recordings are cut."""

    batch: Annotated[Batch, BLOCK] = Batch()
    """How windows are put together for the model."""

    speed: Annotated[Speed, BLOCK] = Speed()
    """How speed is measured."""

    gates: Annotated[QuantizeGates, BLOCK] = QuantizeGates()
    """Limits of the pick, and conditions of publishing."""

    @field_validator("variants")
    @classmethod
    def _each_once(cls, value: list[Variant]) -> list[Variant]:
        twice = sorted({name for name in value if value.count(name) > 1})
        if twice:
            raise PydanticCustomError("twice", "{names} is there twice: name each variant once", {"names": twice[0]})
        return value

    def lacks(self, path: str) -> str | None:
        """That this is none of the variants to make."""
        first = path.removeprefix("variants/").partition("/")[0]
        if first in {"model", "variants", "comparison.json", *self.variants}:
            return None
        return f"it makes {', '.join(self.variants)}"

    def unfit(self, facts: Mapping[str, Any]) -> str | None:
        """That the model is rounded already."""
        if "variant" in facts:
            return f"is a variant already ({facts['variant']}): quantise the model that it was made from"
        return None

    def remarks(self) -> tuple[str, ...]:
        """Which of the variants cannot be made here."""
        graphs = [name for name in self.variants if name.startswith("onnx-")]
        missing = [package for package in ("onnx", "onnxruntime") if find_spec(package) is None]
        found = []
        if graphs and missing:
            why = f"not available here: not installed: {', '.join(missing)} (pip install {' '.join(missing)})"
            found.append(f"{', '.join(graphs)}: {why}; left out")
        if "tensorrt" in self.variants and not _has_tensorrt():
            found.append(
                "tensorrt: not available here: ONNX Runtime on this machine has no TensorRT provider; left out"
            )
        return tuple(found)


def _has_tensorrt() -> bool:
    """Whether ONNX Runtime's provider lies beside it; to import it would load numpy."""
    found = find_spec("onnxruntime")
    places = [] if found is None else found.submodule_search_locations or []
    return any(next(Path(place, "capi").glob("*providers_tensorrt*"), None) for place in places)
