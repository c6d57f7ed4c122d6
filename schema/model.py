"""`model`: which model, at which revision, loaded how. `model: X` is short for `model: {id: X}`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from runner.schema.block import Block
from runner.schema.marks import MODEL, NEUTRAL, RESULT
from runner.schema.reference import checked, is_reference

LOCAL = ("./", "../", "/", "~")  # an id that begins like this, or is one of these, is a folder
COMMIT = re.compile(r"[0-9a-f]{40}")


def is_folder(id: str) -> bool:  # noqa: A002 (the spec's own word)
    """Whether ``id`` means a folder of this machine."""
    return id.startswith(LOCAL) or id in {".", ".."}


class Model(Block):
    """A model to start from."""

    model_config = ConfigDict(json_schema_extra={"x-short-form": "id"})

    id: Annotated[
        str,
        MODEL,
        Field(min_length=1, max_length=4096, examples=["jonatasgrosman/wav2vec2-large-xlsr-53-portuguese"]),
        AfterValidator(checked),
    ]
    """A hub id (`owner/name`), a folder (`./path`), or another job's output (`artifact:NAME[@VERSION][#path]`)."""

    revision: Annotated[str, NEUTRAL, Field(min_length=1, max_length=255)] = "main"
    """Branch, tag or commit of a hub id; the plan pins it to a commit."""

    adapter: Annotated[str | None, RESULT, Field(pattern=r"^[a-zA-Z0-9_-]{1,63}$")] = None
    """Language adapter of a model that carries several: letters, digits, `_` and `-`, for example `por` for MMS."""

    allow_pickle: Annotated[bool, NEUTRAL] = False
    """Accept weights stored as pickle where there is no safetensors file; they are read with weights-only loading."""

    trust_remote_code: Annotated[bool, RESULT] = False
    """Run Python code that comes with the model; a hub id then needs a full commit as its `revision`."""

    @model_validator(mode="before")
    @classmethod
    def _from_id(cls, value: Any) -> Any:
        return {"id": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _trusts_only_what_is_pinned(self) -> Model:
        on_hub = not is_folder(self.id) and not is_reference(self.id) and not self.id.startswith("hf:")
        if self.trust_remote_code and on_hub and not COMMIT.fullmatch(self.revision):
            raise PydanticCustomError(
                "unpinned",
                "trust_remote_code runs the hub's code, so revision must be a full commit (40 hexadecimal digits), "
                "got {revision}",
                {"revision": repr(self.revision)},
            )
        return self
