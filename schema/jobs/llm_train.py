"""`llm-train`: train a language model on conversations or plain text, whole or through an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from runner.schema.adapter import LanguageAdapter
from runner.schema.block import Block
from runner.schema.corpus import Corpus
from runner.schema.distribution import Distribution
from runner.schema.job import Job
from runner.schema.marks import BLOCK, FILE, NEUTRAL, RESULT
from runner.schema.model import Model
from runner.schema.one_or_more import ONE_OR_MORE
from runner.schema.optimize import Optimize
from runner.schema.packing import Packing
from runner.schema.reference import TextFile

Share = Annotated[float, RESULT, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainingCorpora(Block):
    """What is learned and what is measured on."""

    train: Annotated[list[Corpus], BLOCK, ONE_OR_MORE, Field(min_length=1, max_length=1000, examples=["chat.jsonl"])]
    """What the model learns from: one corpus, or a list of them, which are mixed by their weights."""

    validation: Annotated[list[Corpus], BLOCK, ONE_OR_MORE, Field(max_length=1000)] = []  # noqa: RUF012 (pydantic copies it)
    """What is measured on, never learned from; left out: nothing is, but for `validation_share`."""

    validation_share: Annotated[float, RESULT, Field(ge=0, le=0.5)] = 0.0
    """Share of the documents of `train` that is kept back and measured on, in place of `validation`."""

    template: Annotated[TextFile | None, FILE] = None
    """A chat template (Jinja) in a file; left out: the tokenizer's own, else that of the model's family."""

    loss_on: Annotated[Literal["responses", "all"] | None, RESULT] = None
    """Which tokens are learned: `responses` those that the assistant writes, `all` every one; left out: `responses`
    for `method: sft`, `all` for `pretrain`."""

    on_error: Annotated[Literal["stop", "skip"], RESULT] = "stop"
    """What a broken line or a sample without anything to learn does: `stop` ends the job with its place and reason,
    `skip` leaves it out, counts it and lists it in `skipped.jsonl`."""

    streaming: Annotated[bool, RESULT] = False
    """Tokenise while training instead of once before: for corpora whose tokens do not fit on the disk. Documents then
    come in another order, shuffled within `packing.look_ahead` of them."""

    @model_validator(mode="after")
    def _one_validation(self) -> TrainingCorpora:
        if self.validation and self.validation_share:
            raise PydanticCustomError("validation", "give validation or validation_share, not both")
        if self.streaming and self.validation_share:
            raise PydanticCustomError("validation", "a stream has no end to take a share of: give validation files")
        return self


class LanguageArchitecture(Block):
    """A model to train from random weights, in place of `model`; the sizes are those of a small one."""

    type: Annotated[Literal["none", "llama", "qwen3"], RESULT] = "none"
    """`llama` and `qwen3` make a model of that family; `none` begins with `model`."""

    hidden: Annotated[int, RESULT, Field(ge=8, le=65536)] = 256
    """Width of the model; a multiple of twice `heads`."""

    layers: Annotated[int, RESULT, Field(ge=1, le=1024)] = 6
    """Layers of the model."""

    heads: Annotated[int, RESULT, Field(ge=1, le=1024)] = 4
    """Attention heads of a layer."""

    kv_heads: Annotated[int, RESULT, Field(ge=1, le=1024)] = 2
    """Heads of keys and values; `heads` is a multiple."""

    feed_forward: Annotated[int, RESULT, Field(ge=8, le=262144)] = 768
    """Width inside a layer."""

    positions: Annotated[int, RESULT, Field(ge=16, le=10_000_000)] = 2048
    """Longest sequence."""

    vocabulary: Annotated[int, RESULT, Field(ge=300, le=1_000_000)] = 2048
    """Entries of the byte-level BPE tokenizer that is learned from the training texts."""

    tied: Annotated[bool, RESULT] = True
    """One matrix for embeddings and head."""

    @model_validator(mode="after")
    def _fits(self) -> LanguageArchitecture:
        if self.type == "none" and self.model_dump() != {n: f.default for n, f in type(self).model_fields.items()}:
            raise PydanticCustomError("type", "sizes need a type: set architecture.type to llama or qwen3")
        if self.hidden % (2 * self.heads):
            raise PydanticCustomError("multiple", "hidden must be a multiple of twice heads")
        if self.heads % self.kv_heads:
            raise PydanticCustomError("multiple", "heads must be a multiple of kv_heads")
        return self


class Tokens(Block):
    """Entries added to the vocabulary; embeddings and head grow with it."""

    add: Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], RESULT, Field(max_length=10_000)] = []  # noqa: RUF012
    """New special tokens, each one piece that is never split: `["<|im_start|>", "<|im_end|>"]`."""

    multiple: Annotated[int, RESULT, Field(ge=1, le=4096)] = 1
    """Rows of the embeddings are padded to a multiple of this: 64 or 128 speeds up large products."""


class LanguageTrain(Block):
    """The optimiser's run. Exactly one of `epochs` and `max_steps`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["epochs"], "properties": {"epochs": {"type": "number"}}},
                {"required": ["max_steps"], "properties": {"max_steps": {"type": "integer"}}},
            ]
        }
    )

    epochs: Annotated[float | None, RESULT, Field(gt=0, le=100_000, examples=[1])] = None
    """Times that every document is learned."""

    max_steps: Annotated[int | None, RESULT, Field(ge=1, le=100_000_000)] = None
    """Steps of the optimiser, in place of epochs."""

    learning_rate: Annotated[float | None, RESULT, Field(gt=0, le=1)] = None
    """Highest learning rate; left out: 2e-4 for an adapter, 2e-5 for a whole model, 1e-3 for an `architecture`."""

    schedule: Annotated[Literal["linear", "cosine", "constant"], RESULT] = "cosine"
    """How the rate falls after the warm-up."""

    warmup: Share = 0.03
    """Share of the steps in which the rate rises."""

    floor: Share = 0.1
    """Share of the learning rate that it falls to."""

    optimizer: Annotated[Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"], RESULT] = "adamw"
    """`adamw_8bit` and `paged_adamw_8bit` need a GPU and the package bitsandbytes; `adafactor` keeps little state."""

    weight_decay: Annotated[float, RESULT, Field(ge=0, le=1)] = 0.0
    """Decay of the weights; biases and norms have none."""

    betas: Annotated[list[Beta], RESULT, Field(min_length=2, max_length=2)] = [0.9, 0.999]  # noqa: RUF012
    """Memory of AdamW's two averages."""

    clip_norm: Annotated[float, RESULT, Field(gt=0, le=1000)] = 1.0
    """Gradients longer than this are shortened to it."""

    neftune_alpha: Annotated[float | None, RESULT, Field(gt=0, le=1000)] = None
    """Noise on the embeddings while training (NEFTune); left out: none."""

    seed: Annotated[int, RESULT, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of new weights, order and dropout."""

    @model_validator(mode="after")
    def _one_length(self) -> LanguageTrain:
        if (self.epochs is None) == (self.max_steps is None):
            raise PydanticCustomError("one_length", "give exactly one of epochs and max_steps")
        return self


class LanguageBatch(Block):
    """What makes one step of the optimiser: `accumulate` forward passes of `rows` rows, in all processes together."""

    seq_len: Annotated[int, RESULT, Field(ge=8, le=10_000_000)] = 2048
    """Tokens of a packed row; without packing the longest document."""

    rows: Annotated[int, RESULT, Field(ge=1, le=65536)] = 1
    """Packed rows of one forward pass of one process; without packing documents."""

    accumulate: Annotated[int, RESULT, Field(ge=1, le=65536)] = 8
    """Forward passes whose gradients make one step, as one larger batch would; shared among the processes of
    `compute.workers`, so it must be a multiple of them."""


class LanguageEvaluation(Block):
    """When the model is measured, and when it is kept to go on from after a kill."""

    every_steps: Annotated[int | None, RESULT, Field(ge=1, le=100_000_000)] = None
    """Steps between two measurements on `data.validation`; left out: a tenth of all steps. The last is measured."""

    save_every_steps: Annotated[int | None, NEUTRAL, Field(ge=1, le=100_000_000)] = None
    """Steps between two checkpoints; left out: as `every_steps`."""

    patience: Annotated[int | None, RESULT, Field(ge=1, le=10_000)] = None
    """Stop after so many measurements without a lower loss; left out: never."""

    best: Annotated[bool, RESULT] = True
    """Publish the weights of the measurement with the lowest loss; otherwise, and without validation, the last."""

    prompts: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=100_000)]], RESULT, Field(max_length=100)
    ] = []  # noqa: RUF012
    """Answered, greedily, at each measurement: `samples.jsonl` and the report show how the model learns."""

    prompt_tokens: Annotated[int, RESULT, Field(ge=1, le=4096)] = 64
    """Longest answer in tokens."""


class LanguageGates(Block):
    """Conditions that the artifact must meet to be published."""

    max_validation_loss: Annotated[float | None, NEUTRAL, Field(gt=0, le=1000)] = None
    """Highest loss on the validation data, in nats a token."""

    max_validation_perplexity: Annotated[float | None, NEUTRAL, Field(ge=1, le=1e9)] = None
    """Highest perplexity on the validation data."""

    max_training_loss: Annotated[float | None, NEUTRAL, Field(gt=0, le=1000)] = None
    """Highest mean loss of the last tenth of the steps."""


class LlmTrain(Job):
    """Train a language model on conversations or plain text."""

    tasks: ClassVar = ("causal", "image-text")
    code_version = 1

    kind: Annotated[Literal["llm-train"], RESULT]
    """What this spec is."""

    model: Annotated[Model | None, BLOCK, Field(examples=["./model"])] = None
    """The model to start from; exactly one of `model` and `architecture.type`."""

    architecture: Annotated[LanguageArchitecture, BLOCK] = LanguageArchitecture()
    """A model to train from random weights."""

    tokens: Annotated[Tokens, BLOCK] = Tokens()
    """Entries added to the vocabulary."""

    method: Annotated[Literal["sft", "pretrain"], RESULT, Field(examples=["sft"])]
    """`sft` learns to answer (conversations, prompts with completions), `pretrain` to continue plain text."""

    data: Annotated[TrainingCorpora, BLOCK]
    """What is learned and what is measured on."""

    adapter: Annotated[LanguageAdapter, BLOCK] = LanguageAdapter()
    """Train small matrices beside frozen weights."""

    quantize: Annotated[Literal["none", "nf4", "int4", "int8", "fp8", "fp8_block"], RESULT] = "none"
    """Format of the frozen weights under an adapter: `nf4` and `int4` need a quarter of the memory of bf16, of the
    linear layers; experts, embeddings and heads stay."""

    packing: Annotated[Packing, BLOCK] = Packing()
    """Several documents in one row, without padding."""

    train: Annotated[LanguageTrain, BLOCK]
    """The optimiser's run."""

    batch: Annotated[LanguageBatch, BLOCK] = LanguageBatch()
    """What makes one step."""

    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], RESULT] = "auto"
    """Number format of frozen weights and large products: `auto` is bf16 where the device computes in it natively,
    otherwise fp32. What is trained is kept in fp32."""

    optimize: Annotated[Optimize, BLOCK] = Optimize()
    """What is done to train faster and in less memory."""

    evaluation: Annotated[LanguageEvaluation, BLOCK] = LanguageEvaluation()
    """When the model is measured."""

    distribution: Annotated[Distribution, BLOCK] = Distribution()
    """How several processes train one model."""

    track: Annotated[list[Literal["tensorboard", "wandb", "mlflow", "trackio"]], NEUTRAL] = ["tensorboard"]  # noqa: RUF012
    """Where curves are written beside the report; each but TensorBoard needs its package, and takes its settings from
    the environment."""

    gates: Annotated[LanguageGates, BLOCK] = LanguageGates()
    """Conditions that the artifact must meet to be published."""

    @model_validator(mode="after")
    def _agrees(self) -> LlmTrain:
        if (self.model is None) == (self.architecture.type == "none"):
            raise PydanticCustomError("one_start", "give exactly one of model and architecture.type")
        if self.model is None and self.adapter.type != "none":
            raise PydanticCustomError("adapter", "an adapter goes beside a trained model, not an architecture")
        if self.adapter.type == "none" and self.quantize != "none":
            raise PydanticCustomError(
                "quantize",
                "quantised weights cannot be trained themselves: set adapter.type to lora, or quantize to none",
            )
        if self.batch.accumulate % self.compute.workers:
            raise PydanticCustomError(
                "accumulate",
                "the forward passes of a step are shared among the processes: batch.accumulate must be a multiple of "
                "compute.workers",
            )
        if self.data.streaming and self.train.max_steps is None:
            raise PydanticCustomError("stream", "a stream has no known end: give train.max_steps, not epochs")
        self._one_gpu_each()
        self._lora_kernel()
        self._measured()
        return self

    def _measured(self) -> None:
        if self.data.validation or self.data.validation_share:
            return
        gates = self.gates
        needs = {
            "gates.max_validation_loss": gates.max_validation_loss,
            "gates.max_validation_perplexity": gates.max_validation_perplexity,
            "evaluation.patience": self.evaluation.patience,
        }
        if asked := next((name for name, value in needs.items() if value is not None), None):
            raise PydanticCustomError(
                "unmeasured",
                "{name} needs data to measure on: give data.validation or data.validation_share",
                {"name": asked},
            )

    def _one_gpu_each(self) -> None:
        gpus, workers = self.compute.gpus, self.compute.workers
        if gpus > 1 or (workers > 1 and gpus not in {0, 1}):
            raise PydanticCustomError(
                "one_gpu",
                "each training process takes one whole GPU: for n GPUs set compute.gpus to 1 and compute.workers to n",
            )

    def _lora_kernel(self) -> None:
        if self.optimize.quantised_lora != "required":
            return
        if self.adapter.type == "none":
            raise PydanticCustomError(
                "quantised_lora",
                "optimize.quantised_lora is for an adapter's layers: set adapter.type to lora, or quantised_lora to "
                "preferred",
            )
        if self.distribution.strategy == "zero3":
            raise PydanticCustomError(
                "quantised_lora",
                "under distribution.strategy zero3 an adapter's layers run by PEFT's own forward, so "
                "optimize.quantised_lora cannot be required: set strategy to fsdp2, or quantised_lora to preferred",
            )

    def lacks(self, path: str) -> str | None:
        """That it makes an adapter, not a model, or the other way round."""
        first, trains_all = path.partition("/")[0], self.adapter.type == "none"
        if first == "model" and not trains_all:
            return "it makes an adapter, which is no model by itself; give the model that it is trained beside"
        if first == "adapter" and trains_all:
            return "it trains all weights and makes a model; leave '#adapter' out"
        return None

    def unfit(self, facts: Mapping[str, Any]) -> str | None:
        """That it has no head, or weights that are quantised already and should all be trained."""
        if not facts["head"]:
            return "has no language-model head, which training needs"
        if facts["quantised"] and self.adapter.type == "none":
            return f"has weights quantised to {facts['quantised']!r}, which only an adapter can train: set adapter.type"
        return None

    def training(self) -> Mapping[str, Any]:
        """Its sizes, and what is done about memory."""
        return {
            "seq_len": self.batch.seq_len,
            "rows": self.batch.rows,
            "rank": None if self.adapter.type == "none" else self.adapter.r,
            "precision": self.precision,
            "quantize": self.quantize,
            "whole": bool(self.tokens.add or self.adapter.modules_to_save),
            "checkpointing": self.optimize.checkpointing,
            "chunked": self.optimize.loss_chunking != "off",
            "optimizer": self.train.optimizer,
            "strategy": self.distribution.strategy,
            "offload": self.distribution.offload,
        }
