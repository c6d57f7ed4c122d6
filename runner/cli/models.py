"""List the model families, or say what an id or folder is and what a job would do with it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from runner.plan import references
from runner.plan.estimate import estimate
from runner.registry.family import Family, Resolved
from runner.registry.recognise import families
from runner.registry.resolve import resolve
from runner.report.text import value
from runner.schema import reference
from runner.schema.errors import UsageError
from runner.schema.kinds import job_class, kinds_for
from runner.schema.words import size
from runner.store.local import open_store

SHOWN = ("vocab_size", "hidden", "layers", "sample_rate", "stride_ms", "receptive_samples", "mask", "normalise")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the words of this verb."""
    parser.add_argument("action", nargs="?", choices=("ls", "resolve"), default="ls", help="ls: the families (default)")
    parser.add_argument("model", nargs="?", metavar="ID|PATH", help="hub id, ./folder or artifact:NAME, for resolve")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a hub id (default: main)")
    parser.add_argument("--adapter", help="language adapter, for families that have them")
    parser.add_argument("--allow-pickle", action="store_true", help="accept weights stored as pickle")
    parser.add_argument("--trust-remote-code", action="store_true", help="accept models that bring their own code")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how to print it")


def run(args: argparse.Namespace) -> int:
    """Print families, or one model."""
    if args.action == "ls" and args.model:
        raise UsageError(
            f"models ls takes no model, got {args.model!r}; runner models resolve {args.model} says what it is"
        )
    if args.action == "resolve" and not args.model:
        raise UsageError("models resolve needs an id or a folder, for example: runner models resolve ./model")
    if args.action == "ls":
        facts: Any = [_family(family) for family in families().values()]
        lines = [line for family in families().values() for line in _family_lines(family)]
    else:
        facts = _resolved(_resolve(args))
        lines = _model_lines(facts)
    print(json.dumps(facts, indent=1, ensure_ascii=False) if args.output == "json" else "\n".join(lines))
    return 0


def _resolve(args: argparse.Namespace) -> Resolved:
    where = args.model
    if reference.is_reference(where):
        try:
            named = reference.parse(where)
        except ValueError as error:
            raise UsageError(f"{where!r}: {error}") from None
        where = references.in_store(named, field="model", store=open_store(args.store), known={}).path
    return resolve(
        where,
        revision=args.revision,
        folder=Path.cwd(),
        allow_pickle=args.allow_pickle,
        trust_remote_code=args.trust_remote_code,
        adapter=args.adapter,
    )


def _family(family: Family) -> dict[str, Any]:
    return {
        "family": family.name,
        "title": family.title,
        "kinds": list(kinds_for(family.task)),
        "task": family.task,
        "features": family.features,
        "model_types": list(family.model_types),
        "architectures": list(family.architectures),
        "languages": family.languages,
        "normalise": family.normalise,
        "limits": list(family.limits),
    }


def _family_lines(family: Family) -> list[str]:
    return [
        f"{family.name:<16} {family.title} ({', '.join(kinds_for(family.task))})",
        *(f"{'':<16} - {text}" for text in ((family.languages,) if family.languages else ()) + family.limits),
    ]


def _resolved(model: Resolved) -> dict[str, Any]:
    kinds = [kind for kind in kinds_for(model.family.task) if not model.lack or job_class(kind).begins]
    return {
        "family": model.family.name,
        "model_type": model.model_type,
        "source": model.source,
        "ref": model.ref,
        "commit": model.commit,
        "path": model.path,
        "weights": model.weights,
        "facts": model.facts,
        "files": [{"path": path, "size": count} for path, count in model.files],
        "lack": model.lack,
        "kinds": kinds,
        "languages": model.family.languages,
        "limits": list(model.family.limits),
        "patches": [],  # kernels that would be put in: none exist for these families
        "forecast": {"estimate": True, **{kind: estimate((), (model,)) for kind in kinds}},
        "actions": _actions(model),
    }


def _actions(model: Resolved) -> list[str]:
    """What a job would do with it, in order."""
    total = size(sum(count for _, count in model.files))
    loaded = {"pickle": "weights-only pickle loading", "onnx": "ONNX Runtime"}.get(model.weights, "safetensors")
    code = [path for path, _ in model.files if path.endswith(".py")]
    mask = "with" if model.facts["mask"] else "without"
    return [
        *([f"download {len(model.files)} files, {total}, at commit {model.commit}"] if model.path is None else []),
        f"load {value(model.facts['parameters'])} parameters through {loaded}",
        *([f"run the model's own code: {', '.join(code)}"] if code else []),
        f"normalise: {model.family.normalise}",
        f"batch {mask} an attention mask, outputs trimmed to their true length",
    ]


def _model_lines(facts: dict[str, Any]) -> list[str]:
    found = facts["facts"]
    forecast = facts["forecast"]
    rows = [
        (
            "family",
            f"{facts['family']} (model_type {facts['model_type']}), for {', '.join(facts['kinds']) or 'no kind'}",
        ),
        *((("lacks", facts["lack"]),) if facts["lack"] else ()),
        ("source", facts["ref"] + (f", in {facts['path']}" if facts["path"] else ", not downloaded")),
        ("weights", f"{facts['weights']}, {size(found['weights_bytes'])}, {' '.join(found['dtypes'])}".rstrip(", ")),
        ("parameters", f"{found['parameters']:,} ({found['parameters_from']})"),
        *((key, value(found[key])) for key in SHOWN),
        *(("languages", value(found[key])) for key in ("languages",) if found.get(key)),
        *(
            (f"memory {kind}", f"about {forecast[kind].get('memory_gb', '?')} GB per worker (estimate)")
            for kind in facts["kinds"]
        ),
        ("patches", ", ".join(facts["patches"]) or "none"),
        *(("limit", text) for text in facts["limits"]),
        *(("would", text) for text in facts["actions"]),
        *(("file", f"{file['path']} ({size(file['size'])})") for file in facts["files"]),
    ]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {text}" for name, text in rows]
