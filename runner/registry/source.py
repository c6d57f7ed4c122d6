"""Where a model's files lie: a folder here or a repository of a hub, read through the same three questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from runner.registry import safetensors_header
from runner.registry.safetensors_header import Header
from runner.schema.errors import PlanError

MAX_JSON = 16 * 1024 * 1024  # bytes; an index of many shards is the largest that is read


class Source(Protocol):
    """The files of one model at one state."""

    name: str  # for messages: the id as the user wrote it
    files: dict[str, int]  # path -> bytes, of everything there

    @property
    def commit(self) -> str | None: ...  # of a hub repository

    @property
    def path(self) -> Path | None: ...  # folder on this machine; None while a hub model is not downloaded

    def json(self, path: str) -> dict[str, Any]: ...

    def header(self, path: str) -> Header: ...


class Folder:
    """A model in a folder of this machine."""

    commit: str | None = None

    def __init__(self, name: str, path: Path) -> None:
        if not path.is_dir():
            what = (
                "is a file; give the folder that holds config.json"
                if path.exists()
                else f"does not exist (looked at {str(path)!r})"
            )
            raise PlanError(f"model {name!r} {what}")
        self.name = name
        self.path = path
        self.files = {entry.name: entry.stat().st_size for entry in sorted(path.iterdir()) if entry.is_file()}

    def json(self, path: str) -> dict[str, Any]:
        """The JSON object in ``path``."""
        return read_json(self.path / path, name=f"{self.name}/{path}")

    def header(self, path: str) -> Header:
        """The checked header of the safetensors file ``path``."""
        return safetensors_header.read(self.path / path)


def read_json(path: Path, *, name: str) -> dict[str, Any]:
    """The JSON object in the file ``path``; raises PlanError naming ``name``."""
    if path.stat().st_size > MAX_JSON:
        raise PlanError(f"{name!r} has {path.stat().st_size} bytes; at most {MAX_JSON} are read")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{name!r} is not valid JSON: {str(error)[:120]}; download or save it again") from None
    if not isinstance(data, dict):
        raise PlanError(f"{name!r} holds a {type(data).__name__}, not a JSON object; download or save it again")
    return data
