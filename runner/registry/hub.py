"""Models and datasets on a hub: a revision pinned to its commit, and snapshots of exactly the files named.

Works in huggingface_hub's cache and by its settings: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE.
A commit that lies in the cache is used without a request, and without importing huggingface_hub.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from runner.registry.family import Resolved
from runner.registry.hub_place import Kind, home_of, offline
from runner.registry.source import Folder, Source, read_json
from runner.schema.errors import FailureClass, JobError, PlanError
from runner.schema.model import COMMIT

LISTINGS = ".listings"  # beside huggingface_hub's own folders, which it does not look into


def _quiet(text: str) -> None:
    """Say nothing."""


def open_repository(repo: str, *, revision: str) -> Source:
    """``repo`` at the commit that ``revision`` names now; raises PlanError with what to do."""
    home = home_of(repo)
    commit = revision if COMMIT.fullmatch(revision) else _cached_commit(home, revision) if offline() else None
    if commit is not None:
        folder = home / "snapshots" / commit
        if _complete(folder) or (offline() and folder.is_dir()):
            return Cached(repo, folder, commit=commit)
    if offline():
        raise PlanError(
            f"model {repo!r} at revision {revision!r} is not in the cache {str(home.parent)!r}, and HF_HUB_OFFLINE is "
            "set; unset it once to fetch the model, or give a folder (./path)"
        )
    source: Source = _client().Repository(repo, revision=revision)
    return source


def fetch(resolved: Resolved, *, say: Callable[[str], None] = _quiet) -> Path:
    """The folder of ``resolved`` on this machine, downloaded where it has to be; raises JobError."""
    if resolved.path is not None:
        return Path(resolved.path)
    assert resolved.commit is not None, "a hub model without a commit"
    repo = resolved.ref.removeprefix("hf:").partition("@")[0]
    return snapshot(repo, commit=resolved.commit, files=resolved.files, say=say)


def snapshot(
    repo: str,
    *,
    commit: str,
    files: Iterable[tuple[str, int]],
    kind: Kind = "model",
    say: Callable[[str], None] = _quiet,
) -> Path:
    """Folder of the cache with the ``files`` (path, bytes) of ``repo`` at ``commit``, and no others; raises JobError.

    The largest file comes last, so weights in the cache mean that the rest is there. A dropped connection is taken up
    where it broke; a download whose process died starts again.
    """
    folder = home_of(repo, kind=kind) / "snapshots" / commit
    missing = sorted(((path, size) for path, size in files if not (folder / path).is_file()), key=lambda f: f[1])
    if missing and offline():
        what = f"{kind} {repo!r} lacks {missing[0][0]!r} in the cache"
        raise JobError(f"{what} and HF_HUB_OFFLINE is set; unset it once to fetch the {kind}", failure="NotFound")
    for path, size in missing:
        say(f"fetching {path} of {repo} ({size / 1e6:,.1f} MB)")
        _client().download(repo, commit=commit, path=path, kind=kind)
        if (got := (folder / path).stat().st_size) != size:
            what = f"{path!r} of {kind} {repo!r} has {got} bytes where the hub lists {size}"
            failure: FailureClass = "ModelInvalid" if kind == "model" else "DataInvalid"
            raise JobError(f"{what}; delete {str(folder / path)!r} and try again", failure=failure)
    return folder


def listing(repo: str, *, revision: str) -> tuple[str, dict[str, int]]:
    """The commit that ``revision`` of the dataset ``repo`` names now, and its files (path -> bytes).

    What a hub listed is kept in the cache: a commit that was seen once needs no request. Raises PlanError.
    """
    home = home_of(repo, kind="dataset")
    commit = revision if COMMIT.fullmatch(revision) else _cached_commit(home, revision) if offline() else None
    if commit is not None:
        kept, folder = home / LISTINGS / f"{commit}.json", home / "snapshots" / commit
        if kept.is_file():
            return commit, read_json(kept, name=kept.name)
        if offline() and folder.is_dir():
            found = (path for path in sorted(folder.rglob("*")) if path.is_file())
            return commit, {path.relative_to(folder).as_posix(): path.stat().st_size for path in found}
    if offline():
        raise PlanError(
            f"dataset {repo!r} at revision {revision!r} is not in the cache {str(home.parent)!r}, and HF_HUB_OFFLINE "
            "is set; unset it once to fetch the dataset, or give files"
        )
    source = _client().Repository(repo, revision=revision, kind="dataset")
    kept = home / LISTINGS / f"{source.commit}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_name(f"{kept.name}.{os.getpid()}.tmp")
    part.write_text(json.dumps(source.files), encoding="utf-8")
    part.replace(kept)
    return str(source.commit), source.files


class Cached(Folder):
    """A repository whose files lie in the cache."""

    def __init__(self, name: str, path: Path, *, commit: str) -> None:
        super().__init__(name, path)
        self.commit = commit


def _complete(folder: Path) -> bool:
    """Whether a job could run from this folder of the cache as it is."""
    has = {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
    weights = "model.safetensors" in has
    if "model.safetensors.index.json" in has:
        shards = read_json(folder / "model.safetensors.index.json", name="model.safetensors.index.json").get(
            "weight_map"
        )
        weights |= isinstance(shards, dict) and set(map(str, shards.values())) <= has
    return weights and "config.json" in has and bool(has & {"vocab.json", "tokenizer.json"})


def _cached_commit(home: Path, revision: str) -> str | None:
    try:
        text = (home / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, ValueError):  # never fetched, or a revision that no file can be named after
        return None
    return text if COMMIT.fullmatch(text) else None


def _client() -> ModuleType:
    # huggingface_hub takes 0.46 CPU-s to import; most plans name no hub model, or one that lies in the cache
    from runner.registry import hub_client  # noqa: PLC0415

    return hub_client
