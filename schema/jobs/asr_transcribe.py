"""`asr-transcribe`: recordings in, texts with word times, confidence and a report out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from runner.schema.block import Block
from runner.schema.data import AudioData
from runner.schema.job import Job
from runner.schema.marks import BLOCK, NEUTRAL, RESULT
from runner.schema.model import Model


class Audio(Block):
    """How a recording becomes one signal."""

    channels: Annotated[Literal["mix", "left", "right", "each"], RESULT] = "mix"
    """`mix` averages the channels, `left` and `right` take one, `each` transcribes every channel by itself."""

    silence_db: Annotated[float, RESULT, Field(ge=-120, le=0)] = -60.0
    """Energy floor in dB below full scale: frames quieter than this yield no letters."""


class Window(Block):
    """How long recordings are cut; windows overlap by the context and are joined on frames."""

    length_s: Annotated[float, RESULT, Field(ge=1, le=120)] = 20.0
    """Length of one window in seconds, context included."""

    context_s: Annotated[float, RESULT, Field(ge=0.1, le=10)] = 1.0
    """Audio on each side of a window that is heard but not kept, in seconds."""

    @model_validator(mode="after")
    def _leaves_a_centre(self) -> Window:
        if 4 * self.context_s > self.length_s:  # more than half of the work would be heard twice
            raise PydanticCustomError("window", "context_s must be at most a quarter of length_s")
        return self


class Decode(Block):
    """From the model's output to text."""

    beam_size: Annotated[int, RESULT, Field(ge=1, le=1000)] = 1
    """Hypotheses kept at each step; 1 is greedy decoding. Without a language model more change little."""

    timestamps: Annotated[Literal["none", "word", "char"], RESULT] = "word"
    """How fine the times in the result are."""

    language: Annotated[str | None, RESULT, Field(pattern=r"^[a-z]{2,3}$")] = None
    """Language of the speech, for models that are told it (whisper): two or three lower-case letters, for example `pt`;
    left out: the model decides."""


class Batch(Block):
    """How windows are put together for the model. Texts do not depend on it."""

    seconds: Annotated[float | None, NEUTRAL, Field(ge=1, le=36000)] = None
    """Padded seconds of audio in one batch; left out: sized to the device."""

    files: Annotated[int, NEUTRAL, Field(ge=1, le=4096)] = 64
    """Most windows in one batch."""


class Gates(Block):
    """Conditions that the artifact must meet to be published."""

    max_wer: Annotated[float | None, NEUTRAL, Field(ge=0, le=10)] = None
    """Highest word error rate against the manifest's texts (0.1 is 10%)."""

    max_cer: Annotated[float | None, NEUTRAL, Field(ge=0, le=10)] = None
    """Highest character error rate against the manifest's texts."""

    max_failed_share: Annotated[float | None, NEUTRAL, Field(ge=0, le=1)] = None
    """Highest share of files that could not be transcribed."""

    min_confidence: Annotated[float | None, NEUTRAL, Field(ge=0, le=1)] = None
    """Lowest mean confidence of the files with text; confidence is not calibrated."""


class AsrTranscribe(Job):
    """Transcribe recordings with a CTC model or whisper."""

    tasks = ("ctc", "seq2seq")
    code_version = 2

    kind: Annotated[Literal["asr-transcribe"], RESULT]
    """What this spec is."""

    model: Annotated[Model, BLOCK]
    """The acoustic model."""

    data: Annotated[AudioData, BLOCK]
    """The recordings."""

    audio: Annotated[Audio, BLOCK] = Audio()
    """How a recording becomes one signal."""

    window: Annotated[Window, BLOCK] = Window()
    """How long recordings are cut."""

    decode: Annotated[Decode, BLOCK] = Decode()
    """From the model's output to text."""

    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], RESULT] = "auto"
    """Number format of the model: `auto` is bf16 where the device computes in it natively, otherwise fp32.

    Of CTC models only the large products are computed in bf16 or fp16, and a window whose greedy text hangs on the
    rounding is computed again in fp32, by a second copy of the weights.
    """

    batch: Annotated[Batch, BLOCK] = Batch()
    """How windows are put together for the model."""

    outputs: Annotated[list[Literal["srt", "vtt", "txt", "ctm"]], RESULT] = []  # noqa: RUF012 (pydantic copies it)
    """Files to write beside `transcripts.jsonl`, one of each per recording."""

    on_error: Annotated[Literal["continue", "fail"], NEUTRAL] = "continue"
    """Whether a recording that fails only gets its status, or fails the job after the others are done."""

    gates: Annotated[Gates, BLOCK] = Gates()
    """Conditions that the artifact must meet to be published."""

    @field_validator("outputs")
    @classmethod
    def _subtitles_need_times(cls, value: list[str], info: ValidationInfo) -> list[str]:
        decode = info.data.get("decode")  # missing when it has a problem of its own
        timed = [name for name in value if name != "txt"]
        if decode is not None and decode.timestamps == "none" and timed:
            raise PydanticCustomError(
                "needs_times", "{names} need word times: set decode.timestamps to word", {"names": ", ".join(timed)}
            )
        return value
