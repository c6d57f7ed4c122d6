"""Checkpoints of one run: whole or not there, whatever moment it is killed at; of this run, or refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner import ranks
from runner.schema.errors import JobError

NAME = re.compile(r"step-(\d+)")
WRITING = "writing"  # what is being written, and what is being removed: never looked at again
IDENTITY = "run.json"

Fields = dict[str, Any]


class Checkpoints:
    """The folder that survives attempts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writing = folder / WRITING
        if ranks.rank() == 0:
            shutil.rmtree(self.writing, ignore_errors=True)
            self.writing.mkdir(parents=True)
        ranks.meet()

    def check(self, identity: Mapping[str, Any]) -> None:
        """Note what run this is; refuse to go on with the checkpoints of another.

        ``identity`` says all that decides the weights, by field. Raises JobError (Infeasible) naming what differs.
        """
        path = self.folder / IDENTITY
        wanted = json.loads(json.dumps(identity))  # as it is read back
        if not path.exists() or not self.last():
            for note in self.folder.glob("*.json"):  # of a run that got nowhere
                note.unlink()
            self.note(IDENTITY, wanted)
            return
        before = json.loads(path.read_text(encoding="utf-8"))
        differs = [key for key in sorted({*before, *wanted}) if before.get(key) != wanted.get(key)]
        if differs:
            key = differs[0]
            more = f" and {len(differs) - 1} more" if len(differs) > 1 else ""
            raise JobError(
                f"the checkpoints in {str(self.folder)!r} are of another run: {key} was {before.get(key)!r}, "
                f"is {wanted.get(key)!r}{more}; remove that folder to begin anew",
                failure="Infeasible",  # a class that keeps them: with the device they began on they are still good
            )

    def last(self) -> Path | None:
        """The newest checkpoint."""
        found = {int(match[1]): path for path in self.folder.iterdir() if (match := NAME.fullmatch(path.name))}
        return found[max(found)] if found else None

    def of(self, step: int) -> Path:
        """Where the checkpoint of ``step`` lies."""
        return self.folder / f"step-{step}"

    def publish(self, written: Path, *, step: int, keep: set[int]) -> None:
        """Give the whole checkpoint ``written`` its name, then remove all but it and those of the steps ``keep``."""
        for inside in written.rglob("*"):  # folders, too: sharded states have some
            sync(inside)
        sync(written)
        place = self.of(step)
        self._remove(place)  # of the same step: the attempt before was killed while it tidied up
        written.rename(place)
        sync(self.folder)
        for path in list(self.folder.iterdir()):
            match = NAME.fullmatch(path.name)
            if match and int(match[1]) not in keep | {step}:
                self._remove(path)

    def note(self, name: str, content: Any) -> None:
        """Replace a small JSON file at once."""
        fresh = self.writing / name
        fresh.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        sync(fresh)
        fresh.replace(self.folder / name)

    def noted(self, name: str) -> Any:
        """What ``note`` wrote, or None."""
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def _remove(self, path: Path) -> None:
        """By another name first: half a checkpoint never stands under its own."""
        if path.exists():
            gone = self.writing / f"old-{path.name}"
            path.rename(gone)
            shutil.rmtree(gone)


def sync(path: Path) -> None:
    """Bring a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
