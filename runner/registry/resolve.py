"""From an id or a folder to what the model is: config first, headers checked, only what a plan needs downloaded."""

from __future__ import annotations

import re
from os.path import isdir, isfile
from pathlib import Path
from typing import Any

from runner.registry import hub, language_facts
from runner.registry import weights as weights_of
from runner.registry.facts import facts
from runner.registry.family import Family, Resolved
from runner.registry.recognise import guess, recognise, text_family
from runner.registry.source import Folder, Source
from runner.schema.errors import PlanError
from runner.schema.model import COMMIT, is_folder

Fields = dict[str, Any]
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
HUB_ID = re.compile(rf"(?:{_PART}/)?{_PART}")
# what a processor or tokenizer may read; each only where it is there
SIDE_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "feature_extractor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "tokenizer.json",
    "merges.txt",
    "normalizer.json",
    "generation_config.json",
    "variant.json",
)
VOCABULARIES = {"vocab.json", "tokenizer.json"}
NESTED = ("feature_extractor", "tokenizer")  # configs inside a processor's
CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json")


def resolve(
    id: str,  # noqa: A002 (the spec's own word)
    *,
    revision: str = "main",
    folder: Path,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    adapter: str | None = None,
) -> Resolved:
    """What ``id`` is: a folder (``./model``, relative to ``folder``) or a hub id (``owner/name``).

    Raises PlanError, one line, for everything that is not a model a job can use.
    """
    source = open_source(id, revision=revision, folder=folder)
    if "config.json" not in source.files:
        if _is_adapter(source):
            raise PlanError(
                f"model {id!r} is an adapter, which is no model by itself; give the model that it was trained beside "
                "(its adapter_config.json names it), or what PEFT's merge_and_unload makes of the two"
            )
        looks = guess(id)
        hint = f"; by its name it looks like {looks.name}" if looks else ""
        raise PlanError(f"model {id!r} has no config.json{hint}; give the folder that save_pretrained wrote")
    configs = {path: source.json(path) for path in CONFIGS if path in source.files}
    config = configs["config.json"]
    _check_hidden(config, source=source)
    _check_remote_code(configs, source=source, revision=revision, trusted=trust_remote_code)
    family = recognise(config, name=id)
    weights = weights_of.find(source, allow_pickle=allow_pickle)
    files = {*SIDE_FILES, *weights.files} | (_code(source) if trust_remote_code else set())
    vocabularies = VOCABULARIES
    if family.language is None:
        found = facts(family, config=config, processor=_processor(configs), weights=weights, name=id)
    else:
        text = text_family(family, config)
        found = language_facts.facts(family, text, config=config, weights=weights, source=source, name=id)
        vocabularies = language_facts.VOCABULARIES
        files |= {*language_facts.SIDE_FILES}
    if not source.files.keys() & vocabularies:
        found.setdefault("lacks", {})["vocabulary"] = f"no vocabulary ({' or '.join(sorted(vocabularies))})"
    if family.adapters or adapter:
        found |= _adapter(family, source, adapter, allow_pickle=allow_pickle)
        files |= set(found.get("adapter_files", ()))
    return Resolved(
        family=family,
        model_type=config["model_type"],
        source="path" if source.commit is None else "hub",
        ref=id if source.commit is None else f"hf:{source.name}@{source.commit}",
        commit=source.commit,
        path=None if source.path is None else str(source.path),
        config=config,
        facts=found,
        weights=weights.kind,
        files=tuple(sorted((path, size) for path, size in source.files.items() if path in files)),
    )


def _is_adapter(source: Source) -> bool:
    """Whether it is one of PEFT's, or what llm-train leaves of one."""
    if "adapter_config.json" in source.files:
        return True
    inside = "adapter/adapter_config.json"
    return inside in source.files or (source.path is not None and (source.path / inside).is_file())


def open_source(id: str, *, revision: str, folder: Path) -> Source:  # noqa: A002
    """The folder or hub repository behind ``id``; ``hf:owner/name@commit``, as plans pin it, is one too."""
    if is_folder(id):
        path = Path(id).expanduser()
        return Folder(id, path if path.is_absolute() else folder / path)
    repo, _, pinned = id.removeprefix("hf:").partition("@") if id.startswith("hf:") else (id, "", "")
    try:
        if not HUB_ID.fullmatch(repo) or ".." in repo or "--" in repo:
            raise PlanError(
                f"model {id!r} is neither a hub id (owner/name) nor a folder (./path, ../path, /path, ~/path)"
            )
        return hub.open_repository(repo, revision=pinned or revision)
    except PlanError as error:
        here = _here(id, folder)
        if here:
            raise PlanError(f"{error}; {here}") from error
        raise


def _here(id: str, folder: Path) -> str:  # noqa: A002
    """What to write where ``id`` is a path that lacks its `./`; empty where nothing is there."""
    if isdir(folder / id):  # noqa: PTH112 (Path raises where a name is too long)
        return f"the folder {id!r} is here: write './{id}' for it"
    if isfile(folder / id):  # noqa: PTH113
        beside = f"./{id.rpartition('/')[0]}"
        return f"the file './{id}' is here, but a model is the folder that holds config.json: write {beside!r} for that"
    return ""


def _processor(configs: dict[str, Fields]) -> Fields:
    """The feature extractor's settings, wherever this version of transformers kept them."""
    nested = configs.get("processor_config.json", {}).get("feature_extractor")
    return nested if isinstance(nested, dict) else configs.get("preprocessor_config.json", {})


def _check_hidden(config: Fields, *, source: Source) -> None:
    """What transformers would load unasked beside what is listed here, so that no digest would cover it."""
    if config.get("configuration_files"):
        raise PlanError(
            f"model {source.name!r} has another config for each version of transformers (config.json: "
            "configuration_files); load it once and save it with save_pretrained"
        )
    if "adapter_config.json" in source.files:
        raise PlanError(
            f"model {source.name!r} has a PEFT adapter beside its weights (adapter_config.json); merge it into "
            "them, or move it elsewhere"
        )


def _check_remote_code(configs: dict[str, Fields], *, source: Source, revision: str, trusted: bool) -> None:
    using = {path: named for path, config in configs.items() if (named := _own_code(config))}
    if not using:
        return
    if not trusted:
        pin = "" if source.commit is None else " and pin model.revision to a commit"
        raise PlanError(
            f"model {source.name!r} brings its own code ({next(iter(using))}: auto_map); read it, then set "
            f"model.trust_remote_code: true{pin}"
        )
    if source.commit is not None and not COMMIT.fullmatch(revision):
        raise PlanError(
            f"model {source.name!r} runs its own code, so model.revision must be a full commit, got {revision!r}; "
            f"today it is {source.commit}"
        )
    for path, names in using.items():
        for name in names:
            _check_place(name, path=path, source=source)


def _own_code(config: Any) -> list[str]:
    """The classes (`module.Class`) that ``auto_map`` names, also of a feature extractor inside a processor's config."""
    if not isinstance(config, dict):
        return []
    named = config.get("auto_map") or {}
    found = list(named.values()) if isinstance(named, dict) else [named]
    classes = [one for entry in found for one in (entry if isinstance(entry, list | tuple) else [entry])]
    return [str(one) for one in classes if one] + [name for key in NESTED for name in _own_code(config.get(key))]


def _check_place(name: str, *, path: str, source: Source) -> None:
    """Code of another repository is pinned by nothing; code that is no input could change and no digest would tell."""
    repo, _, inside = name.rpartition("--")
    module = f"{inside.rpartition('.')[0]}.py"
    if repo:
        raise PlanError(
            f"model {source.name!r} takes its code from {repo!r} ({path}: auto_map), which nothing pins; use a copy of "
            f"the model with {module!r} in its folder, and {inside!r} in auto_map"
        )
    if module not in source.files:
        raise PlanError(
            f"model {source.name!r} takes its code from {module!r} ({path}: auto_map), which does not lie beside its "
            "config.json; put it there"
        )


def _code(source: Source) -> set[str]:
    return {path for path in source.files if path.endswith(".py")}


def _adapter(family: Family, source: Source, language: str | None, *, allow_pickle: bool) -> Fields:
    if not family.adapters:
        raise PlanError(
            f"model {source.name!r} is of family {family.name}, which has no adapters; leave model.adapter out"
        )
    found: Fields = {"languages": weights_of.languages(source)}
    if language is None:
        return found
    adapter = weights_of.adapter(source, language, allow_pickle=allow_pickle)
    found |= {"adapter": language, "adapter_files": list(adapter.files), "adapter_bytes": adapter.size}
    head = adapter.tensors.get(family.head[0])
    return found | ({"vocab_size": head.shape[0]} if head and head.shape else {})
