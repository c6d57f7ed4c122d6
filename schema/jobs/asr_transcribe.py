"""`asr-transcribe`: recordings in, texts with word times, confidence and a report out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from runner.schema.audio import Audio
from runner.schema.batch import Batch
from runner.schema.block import Block
from runner.schema.data import AudioData
from runner.schema.job import Job
from runner.schema.marks import BLOCK, FILE, MANIFEST, NEUTRAL, RESULT
from runner.schema.model import Model
from runner.schema.reference import checked, checked_file
from runner.schema.text import Text
from runner.schema.window import Window

Name = Annotated[str, Field(min_length=1, max_length=4096)]
File = Annotated[Name, AfterValidator(checked_file)]


class TranscribeData(AudioData):
    """The recordings, by pattern, folder or manifest; and what helps to decode them."""

    text: Annotated[File | None, FILE] = None
    """Text as it is spoken, one sentence a line: an n-gram language model is trained on it, used here, and kept as
    `lm.arpa`. Case and punctuation do not matter; for digits set `text`."""

    validation: Annotated[Annotated[Name, AfterValidator(checked)] | None, MANIFEST] = None
    """A table like `manifest`, with texts: `decode.tune` and `confidence.calibrate` learn from it. Recordings that are
    also to be transcribed flatter the error rate. `root` counts for it too."""


class Decode(Block):
    """From the model's output to text."""

    beam_size: Annotated[int, RESULT, Field(ge=1, le=1000)] = 1
    """Hypotheses kept at each step; 1 is greedy decoding. Without a language model more change little, with one 50 to
    100 are usual."""

    lm: Annotated[File | None, FILE, Field(examples=["pt.arpa.gz"])] = None
    """An n-gram language model of words, as an ARPA file, plain or gzip; or `artifact:NAME#lm.arpa`."""

    ngram_order: Annotated[int, RESULT, Field(ge=1, le=6)] = 3
    """Longest n-gram of the language model that `data.text` trains, in words."""

    alpha: Annotated[float, RESULT, Field(ge=0, le=10)] = 0.5
    """Weight of the language model: what the logarithm of a word's probability is multiplied by."""

    beta: Annotated[float, RESULT, Field(ge=-20, le=20)] = 1.5
    """What each word adds to the score, in natural log: it makes up for the price that the model puts on one."""

    tune: Annotated[bool, RESULT] = False
    """Choose `alpha` and `beta` on `data.validation`, by its word errors: a grid, then around its best point."""

    hotwords: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], RESULT, Field(max_length=10000)] = []  # noqa: RUF012
    """Words and phrases that are likelier than the model thinks, for example names."""

    hotwords_file: Annotated[File | None, FILE, Field(examples=["names.txt"])] = None
    """More of them, one a line."""

    hotword_weight: Annotated[float, RESULT, Field(ge=0, le=100)] = 5.0
    """What each word of a hotword adds to the score, in natural log."""

    timestamps: Annotated[Literal["none", "word", "char"], RESULT] = "word"
    """How fine the times in the result are."""

    language: Annotated[str | None, RESULT, Field(pattern=r"^[a-z]{2,3}$")] = None
    """Language of the speech, for models that are told it (whisper): two or three lower-case letters, for example `pt`;
    left out: the model decides."""


class Confidence(Block):
    """What a word's confidence means: by itself it only orders words, calibrated it is the share that is right."""

    calibrate: Annotated[bool, RESULT] = False
    """Calibrate on `data.validation`; the result is used here and kept as `calibration.json`."""

    calibration: Annotated[File | None, FILE, Field(examples=["artifact:podcast-pt#calibration.json"])] = None
    """Use such a file of an earlier job, made with the same model and decoding; or a file beside the model."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Confidence:
        if self.calibrate and self.calibration is not None:
            raise PydanticCustomError("one_of", "give at most one of calibrate and calibration")
        return self


class Route(Block):
    """Where recordings go that the model is not sure of."""

    below: Annotated[float | None, RESULT, Field(gt=0, le=1)] = None
    """Recordings with less confidence than this are listed in `review.jsonl`, worst first, with the reason; left out:
    none are."""


class Endpoint(Block):
    """Where an utterance ends in a stream. Silence before its first word never counts."""

    after_text_s: Annotated[float, RESULT, Field(ge=0.2, le=60)] = 1.2
    """So much silence after text ends it, in seconds."""

    longest_s: Annotated[float, RESULT, Field(ge=2, le=120)] = 20.0
    """An utterance of this length ends without silence, between two words; in seconds."""


class Streaming(Block):
    """Transcribe each recording as if it came in live: words are committed as they are heard, and never change again.

    Windows of `left_s`, `chunk_s` and `lookahead_s` take the place of `window`; a word is committed about
    `lookahead_s` and half of `chunk_s` after its end.
    """

    chunk_s: Annotated[float, RESULT, Field(ge=0.05, le=10)] = 0.5
    """How much is settled at once, in seconds: shorter is sooner, and costs more."""

    left_s: Annotated[float, RESULT, Field(ge=0, le=20)] = 1.0
    """What is heard before it, in seconds."""

    lookahead_s: Annotated[float, RESULT, Field(ge=0, le=10)] = 0.5
    """What is heard behind it before it is settled, in seconds."""

    endpoint: Annotated[Endpoint, BLOCK] = Endpoint()
    """Where an utterance ends."""

    refine: Annotated[bool, RESULT] = True
    """Read each utterance once more after its end, with all of its context: the surer of the two readings is the
    result's text, beside the committed words."""

    compare: Annotated[bool, RESULT] = False
    """Transcribe the recordings offline too, as `window` says, and report the difference."""

    @model_validator(mode="after")
    def _chunks_are_shorter_than_utterances(self) -> Streaming:
        if 2 * self.chunk_s > self.endpoint.longest_s:
            raise PydanticCustomError("streaming", "endpoint.longest_s must be at least two of chunk_s")
        return self


class Gates(Block):
    """Conditions that the artifact must meet to be published."""

    max_wer: Annotated[float | None, NEUTRAL, Field(ge=0, le=10)] = None
    """Highest word error rate against the manifest's texts (0.1 is 10%)."""

    max_cer: Annotated[float | None, NEUTRAL, Field(ge=0, le=10)] = None
    """Highest character error rate against the manifest's texts."""

    max_failed_share: Annotated[float | None, NEUTRAL, Field(ge=0, le=1)] = None
    """Highest share of files that could not be transcribed."""

    min_confidence: Annotated[float | None, NEUTRAL, Field(ge=0, le=1)] = None
    """Lowest mean confidence of the files with text; without `confidence` it is not calibrated."""


class AsrTranscribe(Job):
    """Transcribe recordings with a CTC model or whisper."""

    tasks = ("ctc", "seq2seq")
    code_version = 2

    kind: Annotated[Literal["asr-transcribe"], RESULT]
    """What this spec is."""

    model: Annotated[Model, BLOCK]
    """The acoustic model."""

    data: Annotated[TranscribeData, BLOCK]
    """The recordings."""

    audio: Annotated[Audio, BLOCK] = Audio()
    """How a recording becomes one signal."""

    window: Annotated[Window, BLOCK] = Window()
    """How long recordings are cut."""

    text: Annotated[Text | None, BLOCK] = None
    """How the texts of `data` are written before anything is learned from them or compared with them: with this block
    `22` is `vinte e dois`, as models that `asr-finetune` makes write it. What the model says stays as it is. Left out:
    texts are compared without case and punctuation, but digits stay digits."""

    decode: Annotated[Decode, BLOCK] = Decode()
    """From the model's output to text."""

    confidence: Annotated[Confidence, BLOCK] = Confidence()
    """What a word's confidence means."""

    streaming: Annotated[Streaming | None, BLOCK] = None
    """Transcribe each recording as if it came in live; left out: at leisure."""

    route: Annotated[Route, BLOCK] = Route()
    """Where recordings go that the model is not sure of."""

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

    @field_validator("decode")
    @classmethod
    def _language_has_what_it_needs(cls, value: Decode, info: ValidationInfo) -> Decode:
        data = info.data.get("data")
        if data is None:
            return value
        if value.lm is not None and data.text is not None:
            raise PydanticCustomError("one_of", "give at most one of decode.lm and data.text")
        model = value.lm is not None or data.text is not None
        if value.beam_size == 1 and (model or value.hotwords or value.hotwords_file):
            raise PydanticCustomError("needs", "a language model and hotwords need a beam: set beam_size to 50 or so")
        if value.tune and (not model or data.validation is None):
            raise PydanticCustomError("needs", "tune needs a language model (lm, or data.text) and data.validation")
        return value

    @model_validator(mode="after")
    def _validation_is_used(self) -> AsrTranscribe:
        if self.confidence.calibrate and self.data.validation is None:
            raise PydanticCustomError("needs", "confidence.calibrate needs data.validation")
        if self.data.validation is not None and not (self.decode.tune or self.confidence.calibrate):
            raise PydanticCustomError(
                "needs", "data.validation is for decode.tune and confidence.calibrate: set one of them, or remove it"
            )
        if self.text is not None and not (self.data.manifest or self.data.validation or self.data.text):
            raise PydanticCustomError(
                "needs", "text is for texts: give data.manifest, data.validation or data.text, or remove it"
            )
        if self.streaming is not None and not self.streaming.refine and self.decode.beam_size > 1:
            raise PydanticCustomError(
                "needs", "streaming without refine decodes greedily: remove decode.beam_size, or set streaming.refine"
            )
        if self.data.text is not None and self.decode.beam_size == 1:
            raise PydanticCustomError(
                "needs", "data.text makes a language model, which needs a beam: set decode.beam_size"
            )
        return self
