"""`training.jsonl` and `speed.jsonl`: one line a step, kept beside the checkpoints so that a run that goes on has all.

Lines are appended as steps are done. A kill leaves lines of steps after the last checkpoint, maybe a torn one: they go
when the run goes on, and come again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.checkpoints import sync

TRAINING, SPEED = "training.jsonl", "speed.jsonl"
Row = Mapping[str, Any]


class Journal:
    """Written by the first process of a team alone; without a folder nothing is written."""

    def __init__(self, folder: Path | None) -> None:
        self._paths = [] if folder is None else [folder / TRAINING, folder / SPEED]
        self._files: list[Any] = []

    def begin(self, step: int) -> None:
        """Go on after ``step`` steps: drops what was written of later ones."""
        self.close()
        for path in self._paths:
            _cut(path, step)
        self._files = [path.open("ab") for path in self._paths]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The steps of `training.jsonl`."""
        return rows(self._paths[0]) if self._paths else iter(())

    def add(self, training: Row, speed: Row) -> None:
        """A step: figures that are the same wherever it is computed, and figures that are not."""
        for file, row in zip(self._files, (training, speed), strict=False):
            file.write(json.dumps(row).encode() + b"\n")

    def sync(self) -> None:
        """Bring it to the disk."""
        for file, path in zip(self._files, self._paths, strict=False):
            file.flush()
            sync(path)

    def close(self) -> None:
        """Nothing more comes."""
        for file in self._files:
            file.close()
        self._files = []


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of ``path``."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _step(line: bytes) -> float:
    """Of a line; one that a kill or a power cut tore is beyond all."""
    try:
        return int(json.loads(line)["step"]) if line.endswith(b"\n") else math.inf
    except ValueError:
        return math.inf


def _cut(path: Path, step: int) -> None:
    path.touch()
    size = 0
    with path.open("rb") as file:
        for line in file:
            if _step(line) > step:
                break
            size += len(line)
    with path.open("r+b") as file:
        file.truncate(size)
