"""`data`: where the audio comes from."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from runner.schema.block import Block
from runner.schema.marks import FILES, MANIFEST, RESULT
from runner.schema.reference import checked


class AudioData(Block):
    """Audio by pattern, by folder, or by manifest; exactly one of `audio` and `manifest`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["audio"], "properties": {"audio": {"type": "array"}}},
                {"required": ["manifest"], "properties": {"manifest": {"type": "string"}}},
            ]
        }
    )

    audio: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=4096)]] | None,
        FILES,
        Field(min_length=1, max_length=10000, examples=[["audio/*.flac"]]),
    ] = None
    """Files, glob patterns (`clips/*.flac`, `**` for any depth) or folders, relative to the spec file."""

    manifest: Annotated[
        Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(checked)] | None, MANIFEST
    ] = None
    """A `.jsonl`, `.csv` or `.tsv` table with `audio` and optional `text`, `id`, `start`, `end` (seconds); a folder of
    `Dataset.save_to_disk`, of which audio and text are read, and whose changes are seen but not those of files that it
    only names; or `artifact:NAME#path`. A table of a job of the same set counts as naming that job's own recordings:
    give `artifact:NAME@VERSION#path` where `root` leads to others."""

    root: Annotated[str | None, RESULT, Field(min_length=1, max_length=4096)] = None
    """Folder that the manifest's audio paths are relative to; left out: the manifest's own folder, or the spec's for a
    table out of an artifact."""

    @model_validator(mode="after")
    def _one_source(self) -> AudioData:
        if (self.audio is None) == (self.manifest is None):
            raise PydanticCustomError("one_source", "give exactly one of audio and manifest")
        return self
