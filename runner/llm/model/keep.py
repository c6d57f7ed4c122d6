"""A trained model as files that plain transformers and PEFT read, the same bytes for the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from runner.llm.model.load import quiet
from runner.llm.model.prepared import Prepared

ADAPTER, MODEL = "adapter", "model"
BASE = "base.json"
SHARD = "5GB"


def save(prepared: Prepared, out: Path, state: Mapping[str, Tensor] | None = None) -> Path:
    """Write ``out/adapter`` or ``out/model``, with the tokenizer beside it; the folder.

    ``state``: all weights by the names of ``prepared.model.state_dict()``, gathered from the processes of a team; left
    out, those of the model. LoRA's matrices are kept in fp32, whole weights in the run's precision.
    """
    state = prepared.model.state_dict() if state is None else dict(state)
    folder = out / (MODEL if prepared.adapter is None else ADAPTER)
    folder.mkdir(parents=True, exist_ok=True)
    if prepared.adapter is None:
        _model(prepared, folder, state)
    else:
        _adapter(prepared, folder, state)
    prepared.tokenizer.save_pretrained(folder)
    return folder


def _model(prepared: Prepared, folder: Path, state: Mapping[str, Tensor]) -> None:
    model: Any = prepared.model
    with quiet():
        model.save_pretrained(folder, state_dict=cast(state, prepared.precision.dtype), max_shard_size=SHARD)
    prepared.config.save_pretrained(folder)  # over the model's own, which knows of this run's attention and cache


def _adapter(prepared: Prepared, folder: Path, state: Mapping[str, Tensor]) -> None:
    model: Any = prepared.model
    with quiet():
        # PEFT would ask a hub for the base's vocabulary; new rows are in modules_to_save, which it keeps anyway
        found = get_peft_model_state_dict(model, state_dict=dict(state), save_embedding_layers=False)
    kept = cast(found, prepared.precision.dtype, but=_of_lora)
    # a head that is tied is there twice, as PEFT keeps it and asks for it when it loads
    kept = {name: one.clone() for name, one in kept.items()}
    save_file(kept, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict()
    config |= {key: sorted(value) for key, value in config.items() if isinstance(value, set)}
    config["inference_mode"] = True
    _json(folder / "adapter_config.json", config)
    model.generation_config.save_pretrained(folder)  # which says what ends a reply
    _json(folder / BASE, _about(prepared))


def cast(
    state: Mapping[str, Tensor], dtype: torch.dtype, *, but: Callable[[str], bool] = lambda _: False
) -> dict[str, Tensor]:
    """``state`` with floating tensors in ``dtype``, on the CPU; tensors that share memory go on sharing it.

    Those whose names are ``but`` keep their own.
    """
    seen: dict[tuple[int, torch.Size], Tensor] = {}
    made: dict[str, Tensor] = {}
    for name, one in state.items():
        key = (one.data_ptr(), one.shape)
        if key not in seen:
            kind = one.dtype if but(name) or not one.is_floating_point() else dtype
            seen[key] = one.detach().to("cpu", kind).contiguous()
        made[name] = seen[key]
    return made


def _of_lora(name: str) -> bool:
    return any(part.startswith("lora_") for part in name.split("."))


def _about(prepared: Prepared) -> dict[str, Any]:
    """What the adapter was trained on, and what one must do to have exactly that again."""
    base, rows = prepared.base, prepared.model.get_input_embeddings().weight.shape[0]
    quantised = prepared.quantize != "none"
    steps = [f"load the base in {prepared.precision.name}"]
    if prepared.grown:
        steps.append(f"model.resize_token_embeddings({rows})")
    if quantised:
        steps.append(
            f"the adapter was trained beside weights in {prepared.quantize}: to have exactly these, round each linear "
            f"layer to {prepared.quantize} and back before merging (llm-export does so: merge_base: dequantised); "
            "beside the weights as they are the model differs by the rounding"
        )
    steps.append("PeftModel.from_pretrained(model, folder)")
    return {
        "base": None if base is None else base.ref,
        "digest": None if base is None else base.digest,
        "precision": prepared.precision.name,
        "quantize": prepared.quantize,
        "merge_base": "dequantised" if quantised else "full",
        "embedding_rows": rows,
        "load": steps,
    }


def _json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
