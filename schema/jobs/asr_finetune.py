"""`asr-finetune`: train a CTC model on recordings and their texts, from a model or from random weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from runner.schema.block import Block
from runner.schema.job import Job
from runner.schema.marks import BLOCK, MANIFEST, NEUTRAL, RESULT
from runner.schema.model import Model
from runner.schema.reference import checked
from runner.schema.text import Text

Table = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(checked)]
Share = Annotated[float, RESULT, Field(ge=0, le=1)]
Size = Annotated[int, Field(ge=1, le=65536)]


class TrainingData(Block):
    """Recordings with texts. What is trained on and what is measured on must not meet."""

    train: Annotated[Table, MANIFEST, Field(examples=["train.jsonl"])]
    """What the model learns from: a table as in `asr-transcribe`, every row with a `text`."""

    validation: Annotated[Table, MANIFEST, Field(examples=["validation.jsonl"])]
    """What is measured on, with texts: other sentences and other speakers. Further columns (`voice`, `noise`) become
    groups of the report."""

    root: Annotated[str | None, RESULT, Field(min_length=1, max_length=4096)] = None
    """Folder that the audio paths of both tables are relative to; left out: each table's own folder, or the spec's for
    a table out of an artifact."""


class Architecture(Block):
    """A model to train from random weights, in place of `model`; the sizes are those of a small one of 0.7 million."""

    type: Annotated[Literal["none", "wav2vec2"], RESULT] = "none"
    """`wav2vec2` makes a wav2vec 2.0 model with a LayerNorm in each convolution; `none` begins with `model`."""

    hidden: Annotated[int, RESULT, Field(ge=8, le=8192)] = 128
    """Width of the encoder."""

    layers: Annotated[int, RESULT, Field(ge=1, le=128)] = 3
    """Layers of the encoder."""

    heads: Annotated[int, RESULT, Field(ge=1, le=256)] = 4
    """Attention heads of a layer; `hidden` must be a multiple."""

    feed_forward: Annotated[int, RESULT, Field(ge=8, le=65536)] = 384
    """Width inside a layer."""

    conv_channels: Annotated[list[Size], RESULT, Field(min_length=1, max_length=12)] = [32, 64, 96, 128]  # noqa: RUF012
    """Channels of each convolution, from samples to frames."""

    conv_kernels: Annotated[list[Size], RESULT, Field(min_length=1, max_length=12)] = [10, 8, 8, 4]  # noqa: RUF012
    """Kernel of each convolution."""

    conv_strides: Annotated[list[Size], RESULT, Field(min_length=1, max_length=12)] = [5, 4, 4, 4]  # noqa: RUF012
    """Stride of each convolution; their product is a frame in samples: 320 is 20 ms."""

    position_kernel: Annotated[int, RESULT, Field(ge=1, le=1024)] = 16
    """Frames that the positional convolution sees."""

    position_groups: Annotated[int, RESULT, Field(ge=1, le=256)] = 8
    """Groups of the positional convolution; `hidden` must be a multiple."""

    @model_validator(mode="after")
    def _fits(self) -> Architecture:
        if self.type == "none" and self.model_dump() != {n: f.default for n, f in type(self).model_fields.items()}:
            raise PydanticCustomError("type", "sizes need a type: set architecture.type to wav2vec2")
        if len({len(self.conv_channels), len(self.conv_kernels), len(self.conv_strides)}) > 1:
            raise PydanticCustomError("lengths", "conv_channels, conv_kernels and conv_strides must be equally long")
        for name in ("heads", "position_groups"):
            if self.hidden % getattr(self, name):
                raise PydanticCustomError("multiple", "hidden must be a multiple of {name}", {"name": name})
        return self


class TrainingAudio(Block):
    """How a recording becomes one signal."""

    channels: Annotated[Literal["mix", "left", "right"], RESULT] = "mix"
    """`mix` averages the channels, `left` and `right` take one."""


class Lint(Block):
    """What stops the job before the first step, when the data has it."""

    allow: Annotated[
        list[
            Literal[
                "unreadable",
                "empty_audio",
                "too_short",
                "too_long",
                "silent",
                "empty_text",
                "text_too_long",
                "outside_vocabulary",
                "leaked_audio",
                "leaked_text",
                "leaked_speaker",
            ]
        ],
        RESULT,
    ] = []  # noqa: RUF012 (pydantic copies it)
    """Findings that do not stop it; recordings that cannot be learned from are then left out. `lint.json` has all."""


class Vocabulary(Block):
    """The characters that the model writes. Those that it could write before keep what they learned."""

    source: Annotated[Literal["keep", "build", "given"] | None, RESULT] = None
    """`keep` takes the model's own, `build` the characters of the training texts, `given` those of `characters`; left
    out: `keep`, and `build` for an `architecture`."""

    characters: Annotated[str | None, RESULT, Field(min_length=1, max_length=10000)] = None
    """The characters of `given`, as one text; the space between words is always there."""

    @model_validator(mode="after")
    def _agrees(self) -> Vocabulary:
        if (self.source == "given") != (self.characters is not None):
            raise PydanticCustomError("characters", "characters go with source: given, and only with it")
        return self


class Train(Block):
    """The optimiser's run: AdamW, gradients clipped. Exactly one of `epochs` and `steps`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["epochs"], "properties": {"epochs": {"type": "integer"}}},
                {"required": ["steps"], "properties": {"steps": {"type": "integer"}}},
            ]
        }
    )

    epochs: Annotated[int | None, RESULT, Field(ge=1, le=100_000, examples=[3])] = None
    """Times that every clip is heard."""

    steps: Annotated[int | None, RESULT, Field(ge=1, le=100_000_000)] = None
    """Steps of the optimiser, in place of epochs."""

    learning_rate: Annotated[float, RESULT, Field(gt=0, le=1)] = 3e-4
    """Highest learning rate."""

    warmup: Share = 0.1
    """Share of the steps in which the learning rate rises."""

    hold: Share = 0.4
    """Share of the steps after that at the highest rate."""

    decay: Annotated[Literal["linear", "cosine"], RESULT] = "linear"
    """How the rate falls in the rest of the steps."""

    floor: Share = 0.02
    """Share of the learning rate that it falls to."""

    weight_decay: Annotated[float, RESULT, Field(ge=0, le=1)] = 0.01
    """Decay of the weights; biases and norms have none."""

    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], RESULT, Field(min_length=2, max_length=2)] = [0.9, 0.98]  # noqa: RUF012
    """Memory of AdamW's two averages."""

    clip_norm: Annotated[float, RESULT, Field(gt=0, le=1000)] = 1.0
    """Gradients longer than this are shortened to it."""

    accumulate: Annotated[int, RESULT, Field(ge=1, le=10_000)] = 1
    """Batches whose gradients make one step; as one larger batch would."""

    freeze_feature_encoder: Annotated[bool | None, RESULT] = None
    """Leave the convolutions as they are; left out: true for a `model`, false for an `architecture`."""

    dropout: Share = 0.0
    """Share of values dropped in the encoder."""

    layerdrop: Share = 0.0
    """Share of layers skipped."""

    shortest_first: Annotated[bool, RESULT] = False
    """Go through the first epoch from short clips to long ones: training from random weights starts sooner."""

    checkpointing: Annotated[bool, NEUTRAL] = False
    """Compute activations again instead of keeping them: a third slower, and much less memory."""

    seed: Annotated[int, RESULT, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of weights, order, augmentation and dropout."""

    @model_validator(mode="after")
    def _one_length(self) -> Train:
        if (self.epochs is None) == (self.steps is None):
            raise PydanticCustomError("one_length", "give exactly one of epochs and steps")
        if self.warmup + self.hold > 1:
            raise PydanticCustomError("shares", "warmup and hold together are at most 1")
        return self


class TrainingBatch(Block):
    """Clips of like length are put together."""

    seconds: Annotated[float, RESULT, Field(ge=1, le=36000)] = 60.0
    """Most seconds of audio in one batch, padding included; a longer clip is a batch by itself. All processes of
    `compute.workers` together hear one batch at a time: with more of them, take larger batches."""

    clips: Annotated[int, RESULT, Field(ge=1, le=4096)] = 64
    """Most clips in one batch."""


class Augment(Block):
    """Changes to the sound of training clips, new in each epoch."""

    noise_snr_db: Annotated[
        list[Annotated[float, Field(ge=-20, le=100)]] | None, RESULT, Field(min_length=2, max_length=2)
    ] = None
    """White noise is added at a level between these two, in dB below the speech: `[12, 40]`; left out: none."""

    speed: Annotated[float, RESULT, Field(ge=0, le=0.5)] = 0.0
    """A clip is played faster or slower by up to this share, which also moves its pitch: 0.1 is 0.9 to 1.1 times."""

    pause_s: Annotated[float, RESULT, Field(ge=0, le=10)] = 0.0
    """Longest silence put before a clip, behind it and between joined ones, in seconds."""

    join: Annotated[int, RESULT, Field(ge=1, le=32)] = 1
    """Most clips joined to one: a model that heard single sentences only misreads longer recordings."""

    silence: Share = 0.0
    """Share of clips that are replaced by faint noise without text."""

    time_masks: Share = 0.0
    """Share of frames masked (SpecAugment), in stretches of `time_mask_frames`, shorter where a clip is shorter."""

    time_mask_frames: Annotated[int, RESULT, Field(ge=1, le=1000)] = 10
    """Length of one time mask in frames."""

    feature_masks: Share = 0.0
    """Share of features masked (SpecAugment), in bands of `feature_mask_width`."""

    feature_mask_width: Annotated[int, RESULT, Field(ge=1, le=1000)] = 10
    """Width of one feature mask."""

    @model_validator(mode="after")
    def _ordered(self) -> Augment:
        if self.noise_snr_db is not None and self.noise_snr_db[0] > self.noise_snr_db[1]:
            raise PydanticCustomError("range", "noise_snr_db goes from the lower level to the higher")
        return self


class LoraAdapter(Block):
    """Train small matrices beside the frozen encoder; they are merged into the model at the end."""

    type: Annotated[Literal["none", "lora"], RESULT] = "none"
    """`lora` trains them and the head alone, `none` the whole model."""

    r: Annotated[int, RESULT, Field(ge=1, le=1024)] = 16
    """Rank of the matrices."""

    alpha: Annotated[float, RESULT, Field(gt=0, le=10000)] = 32.0
    """Their weight is `alpha / r`."""

    dropout: Share = 0.0
    """Share of their inputs dropped."""


class Evaluation(Block):
    """When the model is measured on the validation data; each time it is also kept, to go on from after a kill."""

    every_steps: Annotated[int | None, RESULT, Field(ge=1, le=1_000_000)] = None
    """Steps between two; left out: a tenth of all steps, at most 1,000. The last step is always measured."""

    patience: Annotated[int | None, RESULT, Field(ge=1, le=10_000)] = None
    """Stop after so many measurements without a better error rate; left out: never."""


class TrainingGates(Block):
    """Conditions that the artifact must meet to be published."""

    max_wer: Annotated[float | None, NEUTRAL, Field(ge=0, le=10)] = None
    """Highest word error rate on the validation data (0.1 is 10%)."""

    max_cer: Annotated[float | None, NEUTRAL, Field(ge=0, le=10)] = None
    """Highest character error rate on the validation data."""


class AsrFinetune(Job):
    """Train a CTC model on recordings and their texts."""

    tasks = ("ctc",)
    begins = True
    code_version = 3

    kind: Annotated[Literal["asr-finetune"], RESULT]
    """What this spec is."""

    model: Annotated[Model | None, BLOCK, Field(examples=["./model"])] = None
    """The model to start from; exactly one of `model` and `architecture.type`. It may be one that was only pretrained
    (`facebook/wav2vec2-xls-r-300m`): it has no characters yet, so set `vocabulary: {source: build}`."""

    architecture: Annotated[Architecture, BLOCK] = Architecture()
    """A model to train from random weights."""

    data: Annotated[TrainingData, BLOCK]
    """Recordings with texts."""

    audio: Annotated[TrainingAudio, BLOCK] = TrainingAudio()
    """How a recording becomes one signal."""

    text: Annotated[Text, BLOCK] = Text()
    """How a transcript is written before the model learns it or is compared with it."""

    lint: Annotated[Lint, BLOCK] = Lint()
    """What stops the job before the first step."""

    vocabulary: Annotated[Vocabulary, BLOCK] = Vocabulary()
    """The characters that the model writes."""

    train: Annotated[Train, BLOCK]
    """The optimiser's run."""

    batch: Annotated[TrainingBatch, BLOCK] = TrainingBatch()
    """Clips of like length are put together."""

    augment: Annotated[Augment, BLOCK] = Augment()
    """Changes to the sound of training clips."""

    adapter: Annotated[LoraAdapter, BLOCK] = LoraAdapter()
    """Train small matrices beside the frozen encoder."""

    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], RESULT] = "auto"
    """Number format of the large products while training: `auto` is bf16 where the device computes in it natively,
    otherwise fp32. Weights are kept, and the validation is measured, in fp32."""

    evaluation: Annotated[Evaluation, BLOCK] = Evaluation()
    """When the model is measured."""

    gates: Annotated[TrainingGates, BLOCK] = TrainingGates()
    """Conditions that the artifact must meet to be published."""

    @model_validator(mode="after")
    def _agrees(self) -> AsrFinetune:
        gpus, workers = self.compute.gpus, self.compute.workers
        if gpus > 1 or (workers > 1 and gpus not in {0, 1}):
            raise PydanticCustomError(
                "one_gpu",
                "each training process takes one whole GPU: for n GPUs set compute.gpus to 1 and compute.workers to n",
            )
        if (self.model is None) == (self.architecture.type == "none"):
            raise PydanticCustomError("one_start", "give exactly one of model and architecture.type")
        if self.model is None and self.vocabulary.source == "keep":
            raise PydanticCustomError("keep", "an architecture has no vocabulary to keep: build it, or give it")
        if self.model is None and self.adapter.type != "none":
            raise PydanticCustomError("adapter", "an adapter goes beside a trained model, not an architecture")
        return self

    def unfit(self, facts: Mapping[str, Any]) -> str | None:
        """That its weights are integers or a graph (fp16 and bf16 are numbers as any: training begins with them), or
        that it was only pretrained and has no characters to keep."""
        if facts.get("format", "transformers") != "transformers":
            return f"is a variant of asr-quantize ({facts['variant']}): train the model that it was made from"
        lacks: Mapping[str, str] = facts.get("lacks", {})
        if lacks and self.vocabulary.source in {None, "keep"}:
            return (
                f"has {' and '.join(lacks.values())}, so vocabulary.source keep, the default, has nothing to keep: set "
                "vocabulary: {source: build} to learn the characters of the training texts"
            )
        return None
