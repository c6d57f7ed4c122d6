"""`asr-embed`: recordings in, vectors out: what a speech model's layers say of frames, words or whole recordings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from runner.schema.audio import Audio
from runner.schema.batch import Batch
from runner.schema.block import Block
from runner.schema.data import AudioData
from runner.schema.job import Job
from runner.schema.marks import BLOCK, NEUTRAL, RESULT
from runner.schema.model import Model
from runner.schema.text import Text
from runner.schema.window import Window

Layer = Annotated[int, Field(ge=-1000, le=1000)]
Weight = Annotated[float, Field(ge=-1000, le=1000)]


class EmbedGates(Block):
    """Conditions that the artifact must meet to be published."""

    max_failed_share: Annotated[float | None, NEUTRAL, Field(ge=0, le=1)] = None
    """Highest share of recordings that could not be embedded."""


class AsrEmbed(Job):
    """Embed recordings with the hidden states of a CTC model."""

    tasks = ("ctc",)
    code_version = 1

    kind: Annotated[Literal["asr-embed"], RESULT]
    """What this spec is."""

    model: Annotated[Model, BLOCK]
    """The acoustic model."""

    data: Annotated[AudioData, BLOCK]
    """The recordings."""

    audio: Annotated[Audio, BLOCK] = Audio()
    """How a recording becomes one signal."""

    window: Annotated[Window, BLOCK] = Window()
    """How long recordings are cut; their frames are joined."""

    layers: Annotated[list[Layer], RESULT, Field(min_length=1, max_length=64)] = [-1]  # noqa: RUF012 (pydantic copies it)
    """Layers to take: 0 enters the first one (projected features with their positions), k is the output of the k-th,
    -1 is the last, as the head reads it. Several stand side by side in a vector."""

    weights: Annotated[list[Weight] | None, RESULT, Field(min_length=1, max_length=64)] = None
    """One for each of `layers`: their sum with these weights, as given, instead of all of them side by side."""

    pooling: Annotated[Literal["none", "mean", "std", "mean_std", "max", "word"], RESULT] = "mean"
    """`none` keeps every frame; `mean`, `std`, `mean_std` and `max` give one vector for a recording; `word` gives the
    mean of each word."""

    words: Annotated[Literal["heard", "given"], RESULT] = "heard"
    """Whose times `pooling: word` takes: `heard` are the words that the model hears, `given` those of the manifest's
    texts, aligned."""

    text: Annotated[Text | None, BLOCK] = None
    """With `words: given`, what is said for what is written: with this block `22` is `vinte e dois`; left out, digits
    and characters that the model does not know are wildcards, which take whatever is said there."""

    silence: Annotated[Literal["drop", "keep"], RESULT] = "drop"
    """`drop` leaves frames below `audio.silence_db` out of every pool, and makes them 0 with `pooling: none`; `keep`
    treats silence as sound."""

    dtype: Annotated[Literal["fp16", "fp32"], RESULT] = "fp16"
    """Number format of the vectors; what fp16 cannot hold becomes its largest number."""

    format: Annotated[Literal["parquet", "npy"], RESULT] = "parquet"
    """`parquet` names the recording in each row, `npy` is plain arrays; `index.jsonl` tells whose rows are where."""

    shard_mb: Annotated[int, RESULT, Field(ge=1, le=65536)] = 256
    """Most numbers of one file, in MB (10^6 bytes)."""

    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], RESULT] = "auto"
    """Number format of the model: `auto` is bf16 where the device computes in it natively, otherwise fp32."""

    batch: Annotated[Batch, BLOCK] = Batch()
    """How windows are put together for the model."""

    on_error: Annotated[Literal["continue", "fail"], NEUTRAL] = "continue"
    """Whether a recording that fails only gets its status, or fails the job after the others are done."""

    gates: Annotated[EmbedGates, BLOCK] = EmbedGates()
    """Conditions that the artifact must meet to be published."""

    @model_validator(mode="after")
    def _fits_together(self) -> AsrEmbed:
        if self.weights is not None and len(self.weights) != len(self.layers):
            raise PydanticCustomError(
                "weights",
                "weights has {weights} numbers for {layers} layers: give one for each",
                {"weights": len(self.weights), "layers": len(self.layers)},
            )
        if self.words == "given" and self.pooling != "word":
            raise PydanticCustomError("words", "words says whose times pooling: word takes; leave it out, or set that")
        if self.words == "given" and self.data.manifest is None:
            raise PydanticCustomError("words", "words: given needs texts: give data.manifest with a text column")
        if self.text is not None and self.words != "given":
            raise PydanticCustomError("text", "text says how given words are said; leave it out, or set words: given")
        return self

    def unfit(self, facts: Mapping[str, Any]) -> str | None:
        """Layers that the model has not, or that nobody can look into."""
        if facts.get("format") == "onnx":
            return (
                f"{facts['variant']} is a graph that gives texts and no hidden states; take the model that it was made "
                "of, or a variant in torch's form"
            )
        count: int = facts["layers"]
        if wrong := [layer for layer in self.layers if not -count - 1 <= layer <= count]:
            return f"layers has {wrong[0]}, but the model has 0 to {count}, or -1 to -{count + 1} from the end"
        found = self.numbered(count)
        if twice := [layer for layer in found if found.count(layer) > 1]:
            return f"layers {self.layers} names layer {twice[0]} twice"
        return None

    def numbered(self, count: int) -> tuple[int, ...]:
        """`layers` from the front, of a model that has ``count``."""
        return tuple(layer % (count + 1) for layer in self.layers)
