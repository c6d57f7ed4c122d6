"""Which files a corpus of texts is: one, those that a pattern matches, or those of a folder of `save_to_disk`."""

# ruff: noqa: PTH112, PTH113 - os.path says False where Path raises: a name too long, a folder closed to us

from __future__ import annotations

import json
from os.path import isdir, isfile
from pathlib import Path
from typing import Any

from runner.plan import files
from runner.plan.fields import Field
from runner.plan.files import Place
from runner.registry import dataset
from runner.registry.dataset import TYPES
from runner.schema import manifest
from runner.schema.errors import PlanError

ONE = "(file)"  # stands for a single file, of which only the type decides how it is read


def on_hub(field: Field) -> bool:
    """Whether the corpus is a dataset of a hub."""
    return str(field.value).startswith(dataset.PREFIX)


def is_pattern(source: str, *, folder: Path) -> bool:
    """Whether ``source`` may stand for several files. A file may be called `take[1].jsonl`."""
    return bool(files.MAGIC & set(source)) and not isfile(folder / source) and not isdir(folder / source)


def places(field: Field, *, folder: Path) -> list[Place]:
    """The files of a corpus that lies in the spec's ``folder``, in order, each as fingerprints show it. Of a dataset on
    a hub none: its commit stands for them. Raises PlanError.
    """
    source: str = field.value
    if on_hub(field):
        return []
    if isdir(folder / source):
        return _of_folder(folder / source, shown=source, split=field.beside("split", "train"))
    _check_plain(field)
    named = files.expand([source], folder=folder)
    for name in named:
        if Path(name).suffix.lower() not in TYPES:
            raise PlanError(f"{name!r} is no corpus: known types are {', '.join(TYPES)}")
    if is_pattern(source, folder=folder):
        return [(name, folder / name) for name in named]
    return [(f"{ONE}{Path(source).suffix.lower()}", folder / source)]


def _check_plain(field: Field) -> None:
    """What only a dataset has must not stand beside files: it would be passed over."""
    for name, default in (("split", "train"), ("revision", "main")):
        if (given := field.beside(name, default)) != default:
            raise PlanError(f"{field.value!r} is no dataset, so it has no {name} {given!r}; leave {name} out")


def _of_folder(path: Path, *, shown: str, split: str) -> list[Place]:
    """What `load_from_disk` reads of a split; the caches that the datasets package leaves beside it are none of it."""
    if not manifest.is_arrow(path):
        raise PlanError(
            f"folder {shown!r} was not written by save_to_disk; give its files as a pattern: "
            f"{shown.rstrip('/') + '/*.jsonl'!r}"
        )
    if isfile(path / "dataset_dict.json"):
        splits = sorted(found.parent.name for found in path.glob("*/state.json"))
        if split not in splits:
            raise PlanError(f"{shown!r} has no split {split!r}; it has {', '.join(splits) or 'none'}")
        path = path / split
    state = path / "state.json"
    try:
        named = [str(one["filename"]) for one in _json(state)["_data_files"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise PlanError(f"{shown!r}: 'state.json' does not say which files there are; save it again") from error
    sides = [name for name in ("state.json", "dataset_info.json") if isfile(path / name)]
    return [(name, path / name) for name in [*sides, *named]]


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())
