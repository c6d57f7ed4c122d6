"""`data`: where the audio comes from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from runner.schema.block import Block
from runner.schema.marks import FILES, MANIFEST, RESULT


class AudioData(Block):
    """Audio by pattern, by folder, or by manifest; exactly one of `audio` and `manifest`."""

    audio: Annotated[list[str] | None, FILES, Field(min_length=1, max_length=10000)] = None
    """Files, glob patterns (`clips/*.flac`, `**` for any depth) or folders, relative to the spec file."""

    manifest: Annotated[str | None, MANIFEST, Field(min_length=1, max_length=4096)] = None
    """A `.jsonl`, `.csv` or `.tsv` table with `audio` and optional `text`, `id`, `start`, `end` (seconds); a datasets folder; or `artifact:NAME#path`."""

    root: Annotated[str | None, RESULT, Field(min_length=1, max_length=4096)] = None
    """Folder that the manifest's audio paths are relative to; left out: the manifest's own folder."""

    @model_validator(mode="after")
    def _one_source(self) -> AudioData:
        if (self.audio is None) == (self.manifest is None):
            raise PydanticCustomError("one_source", "give exactly one of audio and manifest")
        return self
