"""PEFT's LoRA around a model: which linear layers get one, and what is trained whole beside it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from runner.kernels.lora import registered
from runner.kernels.quantised import QuantisedLinear
from runner.llm.model import vocabulary
from runner.llm.model.load import quiet
from runner.llm.model.prepared import Adapter, Base
from runner.registry.parameters import of_images
from runner.schema.errors import JobError

HUB = re.compile(r"hf:(?P<id>[^@]+)@(?P<commit>.+)")


def add(
    model: Any,
    adapter: Adapter,
    *,
    facts: Mapping[str, Any],
    grown: bool,
    base: Base | None,
    seed: int,
) -> Any:
    """A PeftModel around ``model``, whose own weights are frozen; A is drawn from ``seed`` and nothing else, B is 0.

    ``grown``: the vocabulary has new rows, so embeddings and head are trained whole. What is trained is in fp32.
    Raises JobError for names that the model does not have.
    """
    saved = _saved(model, adapter.modules_to_save, grown=grown)
    named = _named(base)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.r,
        lora_alpha=2 * adapter.r if adapter.alpha is None else adapter.alpha,  # type: ignore[arg-type]  # any number
        lora_dropout=adapter.dropout,
        target_modules=_targets(model, adapter.target_modules, facts),
        modules_to_save=saved or None,
        use_rslora=adapter.type == "rslora",
        use_dora=adapter.type == "dora",
        ensure_weight_tying=vocabulary.tied(model) and any(name in _ends(model) for name in saved),
        base_model_name_or_path=named.get("id"),
        revision=named.get("commit"),
    )
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []), quiet():
        torch.manual_seed(seed)
        try:
            made = get_peft_model(model, registered(config))
        except ValueError as error:  # such as one of the projections that experts hold as one stack
            said = " ".join(str(error).split()).rstrip(".")
            raise JobError(f"PEFT cannot make the adapter: {said}; change adapter", failure="ModelInvalid") from error
    config.base_model_name_or_path = named.get("id")  # PEFT puts the folder here, which is this machine's own
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return made


def _named(base: Base | None) -> dict[str, str]:
    """What PEFT loads the base by: a hub's id and commit, or a folder as the spec wrote it."""
    if base is None:
        return {}
    hub = HUB.fullmatch(base.ref)
    return hub.groupdict() if hub else {"id": base.ref}


def linears(model: Any) -> list[str]:
    """Paths of the linear layers that an adapter may go to: those of the text, without a head that is tied."""
    outside = {id(model.get_output_embeddings())} if vocabulary.tied(model) else set()
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | QuantisedLinear) and id(module) not in outside and not of_images(path)
    ]


def _targets(model: Any, wanted: Sequence[str], facts: Mapping[str, Any]) -> list[str] | str:
    """Names, as everybody reads them, or a pattern where the names would match other modules too."""
    here = linears(model)
    chosen = {path for path in here if "auto" in wanted and re.fullmatch(facts["lora_pattern"], path)}
    if "auto" in wanted and not chosen:
        raise JobError(
            "the registry knows no linear layers for adapter.target_modules: auto in this model; name some, there are "
            f"{_kinds(here)}",
            failure="ModelInvalid",
        )
    named = [name for name in wanted if name != "auto"]
    for name in named:
        found = {path for path in here if _ends_with(path, name)}
        if not found:
            raise _unknown("target_modules", name, here)
        chosen |= found
    names = sorted({*named, *(facts["lora_targets"] if "auto" in wanted else ())})
    everywhere = {path for path, _ in model.named_modules() if any(_ends_with(path, name) for name in names)}
    return names if everywhere == chosen else "|".join(map(re.escape, sorted(chosen)))


def _saved(model: Any, wanted: Sequence[str], *, grown: bool) -> list[str]:
    """Modules to train whole: those named, and embeddings with their head where the vocabulary has grown."""
    paths = [path for path, module in model.named_modules() if path and not of_images(path)]
    for name in wanted:
        if not any(_ends_with(path, name) for path in paths):
            raise _unknown("modules_to_save", name, paths)
        if any(_ends_with(path, name) and _quantised(model.get_submodule(path)) for path in paths):
            raise JobError(
                f"adapter.modules_to_save {name!r} is quantised, and quantised weights cannot be trained; leave it "
                "out, or set quantize: none",
                failure="Infeasible",
            )
    names = list(dict.fromkeys(wanted))
    if grown:
        names += [name for name in _ends(model) if name not in names]
    if vocabulary.tied(model) and any(name in _ends(model) for name in names):
        embedding, *head = _ends(model)
        names = [name for name in names if name not in head]  # PEFT ties it to the embeddings' copy
        names += [] if embedding in names else [embedding]
    return sorted(names)


def _quantised(module: nn.Module) -> bool:
    return any(isinstance(part, QuantisedLinear) for part in module.modules())


def _ends(model: Any) -> list[str]:
    """Names of embeddings and head."""
    parts = [model.get_input_embeddings(), model.get_output_embeddings()]
    paths = {id(module): path for path, module in model.named_modules()}
    return [paths[id(part)].rpartition(".")[2] for part in parts if part is not None]


def _ends_with(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _kinds(paths: Sequence[str]) -> str:
    return ", ".join(sorted({path.rpartition(".")[2] for path in paths}))


def _unknown(field: str, name: str, paths: Sequence[str]) -> JobError:
    kinds = sorted({path.rpartition(".")[2] for path in paths} - {""})
    kinds = [kind for kind in kinds if not kind.isdigit()]
    near = difflib.get_close_matches(name, kinds, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return JobError(
        f"adapter.{field} names {name!r}, which this model does not have; {hint}there are {', '.join(kinds)[:400]}",
        failure="ModelInvalid",
    )
