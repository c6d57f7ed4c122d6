"""List the model families, or say what an id or folder is and what a job would do with it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from runner.plan import references
from runner.plan.estimate import estimate
from runner.registry.family import Family, Resolved
from runner.registry.forecast import PRECISIONS, QUANTIZE, forecast, rank_of
from runner.registry.language import Language
from runner.registry.recognise import families
from runner.registry.resolve import resolve
from runner.report.text import value
from runner.schema import reference
from runner.schema.errors import PlanError, UsageError
from runner.schema.kinds import job_class, kinds_for
from runner.schema.words import size
from runner.store.local import open_store

LANGUAGE_SHOWN = (
    *("text_family", "images", "quantised", "hidden", "layers", "intermediate", "vocab_size", "tied", "max_positions"),
    *("attention", "heads", "kv_heads", "head_dim", "value_dim", "latent", "qk_norm", "sinks", "softcap_attention"),
    *("softcap_logits", "sliding_window", "sliding_layers", "rope", "norm", "norm_place", "activation", "gated"),
    *("bias", "scales", "experts", "lora_targets", "quantisable"),
)
SHOWN = ("vocab_size", "hidden", "layers", "sample_rate", "stride_ms", "receptive_samples", "mask", "normalise")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the words of this verb."""
    parser.add_argument("action", nargs="?", choices=("ls", "resolve"), default="ls", help="ls: the families (default)")
    parser.add_argument("model", nargs="?", metavar="ID|PATH", help="hub id, ./folder or artifact:NAME, for resolve")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a hub id (default: main)")
    parser.add_argument(
        "--adapter", help="language adapter, for families that have them; lora:16 or none for a forecast of training"
    )
    parser.add_argument("--seq-len", type=int, default=2048, help="tokens of a text, for the forecast (default: 2048)")
    parser.add_argument("--batch", type=int, default=1, help="texts in a step, for the forecast (default: 1)")
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16", help="of the forecast (default: bf16)")
    parser.add_argument("--quantize", choices=QUANTIZE, default="none", help="frozen weights, for the forecast")
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
        model = _resolve(args)
        facts = _resolved(model) | (_language(model, args) if model.family.language else {})
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
        adapter=None if _trains(args.adapter) else args.adapter,
    )


def _trains(adapter: str | None) -> bool:
    """Whether the word is an adapter to be trained rather than a language's."""
    return adapter is not None and (adapter == "none" or ":" in adapter)


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
        **({} if family.language is None else _language_of(family.language)),
    }


def _language_of(language: Language) -> dict[str, Any]:
    """What a family of text models gets, whatever the model."""
    return {
        "adapters": list(language.lora),
        "patches": list(language.patches),
        "gguf": language.gguf,
        "template": language.template,
        "stops": list(language.stops),
    }


def _family_lines(family: Family) -> list[str]:
    return [
        f"{family.name:<16} {family.title} ({', '.join(kinds_for(family.task)) or 'no kind'})",
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
        "patches": [],  # kernels that would be put in: none exist for speech
        "forecast": {"estimate": True, **{kind: estimate((), (model,)) for kind in kinds}},
        "actions": _actions(model),
    }


def _language(model: Resolved, args: argparse.Namespace) -> dict[str, Any]:
    """What is said of a language model beside what is said of all: patches, GGUF and the forecast of a training."""
    text = families()[model.facts["text_family"]].language
    assert model.family.language is not None
    assert text is not None
    return {
        "facts": {key: known for key, known in model.facts.items() if key != "patches"},
        "patches": model.facts["patches"],
        "gguf": text.gguf,
        "template": model.family.language.template,
        "stops": list(text.stops),
        "forecast": {"estimate": True, **_training(model, args)},
    }


def _training(model: Resolved, args: argparse.Namespace) -> dict[str, Any]:
    """The forecast; or, where no adapter was asked for, why there is none. Quantised weights train an adapter."""
    quantised = args.quantize != "none" or model.facts["quantised"]
    try:
        known = forecast(
            model.facts,
            seq_len=_positive("--seq-len", args.seq_len),
            batch=_positive("--batch", args.batch),
            rank=rank_of(args.adapter or ("lora:16" if quantised else "none")),
            precision=args.precision,
            quantize=args.quantize,
        )
    except PlanError as error:
        if args.adapter is not None:
            raise
        return {"training": None, "why": str(error)}
    return {"training": known}


def _positive(name: str, count: int) -> int:
    if count < 1:
        raise UsageError(f"{name} must be a whole number above 0, got {count}")
    return count


def _actions(model: Resolved) -> list[str]:
    """What a job would do with it, in order."""
    total = size(sum(count for _, count in model.files))
    loaded = {"pickle": "weights-only pickle loading", "onnx": "ONNX Runtime"}.get(model.weights, "safetensors")
    code = [path for path, _ in model.files if path.endswith(".py")]
    first = [
        *([f"download {len(model.files)} files, {total}, at commit {model.commit}"] if model.path is None else []),
        f"load {value(model.facts['parameters'])} parameters through {loaded}",
        *([f"run the model's own code: {', '.join(code)}"] if code else []),
    ]
    if model.family.language is not None:
        return first
    mask = "with" if model.facts["mask"] else "without"
    return [
        *first,
        f"normalise: {model.family.normalise}",
        f"batch {mask} an attention mask, outputs trimmed to their true length",
    ]


def _model_lines(facts: dict[str, Any]) -> list[str]:
    found = facts["facts"]
    rows = [
        (
            "family",
            f"{facts['family']} (model_type {facts['model_type']}), for {', '.join(facts['kinds']) or 'no kind'}",
        ),
        *((("lacks", facts["lack"]),) if facts["lack"] else ()),
        ("source", facts["ref"] + (f", in {facts['path']}" if facts["path"] else ", not downloaded")),
        ("weights", f"{facts['weights']}, {size(found['weights_bytes'])}, {' '.join(found['dtypes'])}".rstrip(", ")),
        ("parameters", f"{found['parameters']:,} ({found['parameters_from']})"),
        *(_language_rows(facts) if "gguf" in facts else _speech_rows(facts)),
        *(("limit", text) for text in facts["limits"]),
        *(("would", text) for text in facts["actions"]),
        *(("file", f"{file['path']} ({size(file['size'])})") for file in facts["files"]),
    ]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {text}" for name, text in rows]


def _speech_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    found, known = facts["facts"], facts["forecast"]
    return [
        *((key, value(found[key])) for key in SHOWN),
        *(("languages", value(found[key])) for key in ("languages",) if found.get(key)),
        *(
            (f"memory {kind}", f"about {known[kind].get('memory_gb', '?')} GB per worker (estimate)")
            for kind in facts["kinds"]
        ),
        ("patches", ", ".join(facts["patches"]) or "none"),
    ]


def _language_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    found = facts["facts"]
    shown = {key: _shown(found[key]) for key in LANGUAGE_SHOWN if found[key] not in (None, [], {})}
    wanted = [one["patch"] for one in facts["patches"] if one["wanted"]]
    rest = [f"{one['patch']} (needs {one['needs']})" for one in facts["patches"] if not one["wanted"]]
    return [
        *shown.items(),
        ("template", found["chat_template"] or f"none in the folder ({facts['template']})"),
        ("stops", f"ids {_shown(found['stop_tokens']) or 'none'}; of this family {' '.join(facts['stops']) or 'none'}"),
        ("gguf", facts["gguf"] or "none"),
        ("patches wanted", ", ".join(wanted) or "none"),
        *(("patches not", text) for text in rest),
        *_forecast_rows(facts["forecast"]),
    ]


def _shown(thing: Any) -> str:
    """As ``value``, but numbers whole: they are widths and ids."""
    if isinstance(thing, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in thing.items())
    if isinstance(thing, list):
        return ", ".join(map(_shown, thing))
    return str(thing) if type(thing) is int else value(thing)


def _forecast_rows(given: dict[str, Any]) -> list[tuple[str, str]]:
    """The forecast of a training, a row for each thing that takes memory."""
    if given["training"] is None:
        return [("forecast", f"none: {given['why']}")]
    known = given["training"]
    what = f"{known['batch']} x {known['seq_len']} tokens, adapter {known['adapter']}, {known['precision']}"
    kept, logits, total = known["activations"], known["logits"], known["total"]
    return [
        ("forecast", f"{what}, weights quantised {known['quantize']} (estimate, one device)"),
        ("  trained", f"{known['trainable_parameters']:,} parameters"),
        *((f"  {key}", size(known[key])) for key in ("weights", "gradients", "optimizer")),
        ("  activations", f"{size(kept['kept'])}, with checkpointing {size(kept['checkpointed'])}"),
        ("  logits", f"{size(logits['whole'])}, chunked {size(logits['chunked'])}"),
        ("  in all", f"{size(total['plain'])}, with checkpointing and chunks {size(total['saving'])}"),
        ("  packing", f"at most {known['max_documents']:,} documents in a row (int32 of flash attention's backward)"),
    ]
