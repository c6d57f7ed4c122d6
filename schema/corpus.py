"""`corpus`: one collection of texts or conversations that a language model learns from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from runner.schema.block import Block
from runner.schema.marks import CORPUS, NEUTRAL, RESULT
from runner.schema.reference import checked_file

Column = Literal[
    "messages", "tools", "conversations", "system", "instruction", "input", "output", "prompt", "completion", "text"
]
Format = Literal["messages", "sharegpt", "alpaca", "prompt_completion", "text"]


class Corpus(Block):
    """One corpus. A plain text is short for its `source`."""

    model_config = ConfigDict(json_schema_extra={"x-short-form": "source"})

    source: Annotated[
        str, CORPUS, Field(min_length=1, max_length=4096, examples=["chat.jsonl"]), AfterValidator(checked_file)
    ]
    """A `.jsonl`, `.json`, `.parquet`, `.csv`, `.tsv` or `.txt` file, a pattern (`chats/*.jsonl`), a folder of
    `Dataset.save_to_disk`, `artifact:NAME#path`, or a dataset of a hub: `hf:owner/name`, or `hf:owner/name#PATTERN` for
    those of its files that match."""

    revision: Annotated[str, NEUTRAL, Field(min_length=1, max_length=255)] = "main"
    """Branch, tag or commit of a dataset on a hub; the plan pins it to a commit."""

    split: Annotated[str, RESULT, Field(min_length=1, max_length=255)] = "train"
    """Split of a dataset that has several; of a hub the files whose names have this word."""

    format: Annotated[Format | None, RESULT] = None
    """What a row holds: `messages` (OpenAI, with tools), `sharegpt` (conversations with from and value), `alpaca`
    (instruction, input, output), `prompt_completion`, `text`; left out: told by the columns of the first rows, named in
    the log, and an error where several would fit."""

    columns: Annotated[dict[str, Column], RESULT] = {}  # noqa: RUF012 (pydantic copies it)
    """The format's own column names by yours: `{question: prompt, answer: completion}`."""

    weight: Annotated[float, RESULT, Field(gt=0, le=1e6)] = 1.0
    """How often its documents are taken in an epoch: 2 takes each twice, 0.5 every second one."""

    @model_validator(mode="after")
    def _columns_differ(self) -> Corpus:
        names = list(self.columns.values())
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise PydanticCustomError("columns", "columns: only one can be {name}", {"name": repr(twice[0])})
        return self

    @model_validator(mode="before")
    @classmethod
    def _from_source(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value
