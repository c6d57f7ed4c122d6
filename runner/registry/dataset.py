"""Datasets on a hub: `hf:owner/name`, or `hf:owner/name#PATTERN` for the files that match, pinned to a commit.

Which files a split is, is told by their names, as the datasets package has it: `train.jsonl`, `train/a.parquet`,
`data/train-00000-of-00002.parquet`. Where that says nothing or too much, it is an error with what there is, never a
guess.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from runner.registry import hub
from runner.registry.resolve import HUB_ID
from runner.schema.errors import PlanError

PREFIX = "hf:"
TYPES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv", ".txt")
SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "eval")  # words that name a split
NO_ROWS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "license.txt", "readme.txt"}
SHOWN = 5  # files or folders in an error


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a dataset of a hub turned out to be."""

    repo: str
    commit: str
    pattern: str | None
    files: tuple[tuple[str, int], ...]  # (path, bytes), sorted

    @property
    def ref(self) -> str:
        """As plans pin it: `hf:owner/name@<commit>`, and the pattern."""
        return f"{PREFIX}{self.repo}@{self.commit}{f'#{self.pattern}' if self.pattern else ''}"

    @property
    def digest(self) -> str:
        """The commit, and what is taken of it."""
        return f"commit:{self.commit}{f'#{self.pattern}' if self.pattern else ''}"


def resolve(source: str, *, revision: str = "main", split: str = "train") -> Dataset:
    """What ``source`` is at ``revision``; a commit in it (`hf:owner/name@<commit>`) counts for more.

    Raises PlanError, one line.
    """
    name, _, pattern = source.removeprefix(PREFIX).partition("#")
    repo, _, pinned = name.partition("@")
    if not HUB_ID.fullmatch(repo) or ".." in repo or "--" in repo or "/" not in repo:
        raise PlanError(f"{source!r} is no dataset of a hub: write hf:owner/name, or hf:owner/name#PATTERN")
    if pattern and split != "train":
        raise PlanError(f"{source!r} takes the files that match, whatever split they are of; leave split {split!r} out")
    commit, files = hub.listing(repo, revision=pinned or revision)
    taken = _matching(files, pattern, name=repo) if pattern else _of_split(files, split, name=repo)
    return Dataset(
        repo=repo, commit=commit, pattern=pattern or None, files=tuple((path, files[path]) for path in sorted(taken))
    )


def _matching(files: Mapping[str, int], pattern: str, *, name: str) -> list[str]:
    taken = [path for path in files if fnmatch.fnmatchcase(path, pattern)]
    if not taken:
        raise PlanError(f"dataset {name!r} has no file that matches {pattern!r}; it has {_some(files)}")
    for path in taken:
        if _type(path) not in TYPES:
            raise PlanError(f"{path!r} of dataset {name!r} is no corpus: known types are {', '.join(TYPES)}")
    return taken


def _of_split(files: Mapping[str, int], split: str, *, name: str) -> list[str]:
    data = [path for path in files if _type(path) in TYPES and PurePosixPath(path).name.lower() not in NO_ROWS]
    if not data:
        raise PlanError(f"dataset {name!r} has no file of a known type ({', '.join(TYPES)}); it has {_some(files)}")
    taken = [path for path in data if _names(path, split)]
    if not taken and split == "train" and not any(_names(path, word) for path in data for word in SPLITS):
        taken = data  # nothing says that there are splits
    way_out = f"say which with source: {PREFIX}{name}#PATTERN"
    if not taken:
        raise PlanError(f"dataset {name!r} has no file of split {split!r}; it has {_some(data)}: {way_out}")
    for what, found in (("types", {_type(path) for path in taken}), ("folders", {_home(p, split) for p in taken})):
        if len(found) > 1:
            raise PlanError(
                f"dataset {name!r} has files of split {split!r} of several {what}: {_some(found)}; {way_out}"
            )
    return taken


def _names(path: str, split: str) -> bool:
    """Whether ``split`` is a word of ``path``."""
    return re.search(rf"(?<![a-zA-Z0-9]){re.escape(split)}(?![a-zA-Z0-9])", path) is not None


def _home(path: str, split: str) -> str:
    """The folder of a file, but for the part that names the split: one for each configuration of a dataset."""
    return "/".join(part for part in PurePosixPath(path).parent.parts if part != split) or "."


def _type(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _some(names: Mapping[str, int] | list[str] | set[str]) -> str:
    found = sorted(names)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more if found else "no files"
