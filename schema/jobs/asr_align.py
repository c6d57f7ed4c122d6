"""`asr-align`: recordings and what is said in them in, the times of every word and character out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from runner.schema.audio import Audio
from runner.schema.batch import Batch
from runner.schema.block import Block
from runner.schema.job import Job
from runner.schema.marks import BLOCK, MANIFEST, NEUTRAL, RESULT
from runner.schema.model import Model
from runner.schema.reference import checked
from runner.schema.text import Text
from runner.schema.window import Window


class AlignData(Block):
    """Recordings with their texts."""

    manifest: Annotated[
        str, MANIFEST, Field(min_length=1, max_length=4096, examples=["clips.jsonl"]), AfterValidator(checked)
    ]
    """A `.jsonl`, `.csv` or `.tsv` table with `audio`, `text` and optional `id`, `start`, `end` (seconds); a folder of
    `Dataset.save_to_disk`; or `artifact:NAME#path`. A row without `text` is reported as `unaligned`."""

    root: Annotated[str | None, RESULT, Field(min_length=1, max_length=4096)] = None
    """Folder that the manifest's audio paths are relative to; left out: the manifest's own folder, or the spec's for a
    table out of an artifact."""


class AlignGates(Block):
    """Conditions that the artifact must meet to be published."""

    max_failed_share: Annotated[float | None, NEUTRAL, Field(ge=0, le=1)] = None
    """Highest share of recordings that could not be aligned."""

    min_confidence: Annotated[float | None, NEUTRAL, Field(ge=0, le=1)] = None
    """Lowest mean confidence of the aligned recordings; a text of something else has one near 0."""


class AsrAlign(Job):
    """Find when each word of a known text is said, with a CTC model."""

    tasks = ("ctc",)
    code_version = 1

    kind: Annotated[Literal["asr-align"], RESULT]
    """What this spec is."""

    model: Annotated[Model, BLOCK]
    """The acoustic model."""

    data: Annotated[AlignData, BLOCK]
    """The recordings and their texts."""

    audio: Annotated[Audio, BLOCK] = Audio()
    """How a recording becomes one signal."""

    window: Annotated[Window, BLOCK] = Window()
    """How long recordings are cut."""

    text: Annotated[Text | None, BLOCK] = None
    """What is said for what is written: with this block `22` is `vinte e dois`; left out, digits and characters that
    the model does not know are wildcards, which take whatever is said there."""

    timestamps: Annotated[Literal["word", "char"], RESULT] = "char"
    """How fine the times in the result are."""

    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], RESULT] = "auto"
    """Number format of the model: `auto` is bf16 where the device computes in it natively, otherwise fp32."""

    batch: Annotated[Batch, BLOCK] = Batch()
    """How windows are put together for the model."""

    outputs: Annotated[list[Literal["srt", "vtt", "ctm", "textgrid"]], RESULT] = []  # noqa: RUF012 (pydantic copies it)
    """Files to write beside `alignments.jsonl`, one of each per recording."""

    on_error: Annotated[Literal["continue", "fail"], NEUTRAL] = "continue"
    """Whether a recording that fails only gets its status, or fails the job after the others are done."""

    gates: Annotated[AlignGates, BLOCK] = AlignGates()
    """Conditions that the artifact must meet to be published."""
