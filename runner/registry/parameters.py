"""How many parameters a language model has, and where: exact, from the header of its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from runner.registry.language import Language
from runner.registry.safetensors_header import Tensor
from runner.registry.weights import Weights
from runner.schema.errors import PlanError

Fields = dict[str, Any]
LAYER = re.compile(r"(?:^|\.)layers?\.(\d+)\.")
# tensors of a file that are no parameters of the model: buffers, and scales of quantised weights
BESIDE = re.compile(
    r"(?:e_score_correction_bias|inv_freq|position_ids|_scale_inv|_scales|\.absmax|\.quant_map|\.nested_absmax"
    r"|\.nested_quant_map|\.SCB|\.weight_format|\.quant_state\.[a-z0-9_]+)$"
)
ROUTERS = (".gate.weight", ".router.weight")  # small, and the choice of experts hangs on them: never quantised
HEADS = ("lm_head.weight", "embed_out.weight")
EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|word_embeddings|tok_embeddings)\.weight$")
COUNTED = ("bitsandbytes", "fp8", "mxfp4")  # quantised checkpoints whose parameters can be counted


def facts(weights: Weights, *, config: Fields, language: Language, layers: int, tied: bool, name: str) -> Fields:
    """Keys: parameters, parameters_from, weights_bytes, dtypes, quantised (the checkpoint's own method),
    embedding_parameters (input and output), quantisable (linear modules of the text's layers, by name; no experts),
    quantisable_parameters, vision_parameters, lora_targets, lora_width (sum of inputs and outputs over them; None where
    the header does not say), has_head. ``name`` is for messages.
    """
    method = _method(config, weights, name)
    found = {"weights_bytes": weights.size, "dtypes": weights.dtypes, "quantised": method}
    if not weights.tensors:
        return found | _closed(weights, config, language)
    held = list(_held(weights, packed=method == "bitsandbytes", layers=layers, tied=tied))
    in_layers = [one for one in held if LAYER.search(one[0]) and not of_images(one[0])]
    targets = [(key, tensor) for key, tensor, _ in in_layers if _target(key, language.lora)]
    matrices = [
        (_module(key), count)
        for key, tensor, count in in_layers
        if len(tensor.shape) > 1 and not key.endswith((*ROUTERS, "_bias")) and not _of_experts(key)
    ]
    packed = any(tensor.dtype == "U8" for _, tensor in targets)
    return found | {
        "parameters": sum(count for _, _, count in held),
        "parameters_from": "safetensors header",
        "embedding_parameters": sum(count for key, _, count in held if EMBEDDING.search(key) or key.endswith(HEADS)),
        "quantisable": sorted({module for module, _ in matrices}),
        "quantisable_parameters": sum(count for _, count in matrices),
        "vision_parameters": sum(count for key, _, count in held if of_images(key)),
        "lora_targets": [one for one in language.lora if any(one == _module(key) for key, _ in targets)],
        "lora_width": None if packed else sum(sum(tensor.shape) for _, tensor in targets),
        "has_head": any(key.endswith(HEADS) for key, _, _ in held),
    }


def _closed(weights: Weights, config: Fields, language: Language) -> Fields:
    """What can be said of pickled weights, which are not opened: the file's size, and what the family has."""
    width = 4 if str(config.get("dtype") or config.get("torch_dtype")) in {"float32", "None"} else 2
    return {
        "parameters": weights.size // width,
        "parameters_from": f"estimate from the file size at {8 * width} bits",
        "embedding_parameters": 0,
        "quantisable": [],
        "quantisable_parameters": 0,
        "vision_parameters": 0,
        "lora_targets": list(language.lora),
        "lora_width": None,
        "has_head": True,
    }


def of_images(name: str) -> bool:
    """Whether the tensor belongs to a tower for images or to what joins it to the text."""
    return any(part.startswith(("vision", "visual")) or part == "multi_modal_projector" for part in name.split("."))


def _held(weights: Weights, *, packed: bool, layers: int, tied: bool) -> Iterator[tuple[str, Tensor, int]]:
    """(name, tensor, elements) of every parameter that the model has, each once."""
    for name, tensor in weights.tensors.items():
        layer = LAYER.search(name)
        beyond = layer is not None and not of_images(name) and int(layer[1]) >= layers  # layers that predict further
        again = tied and name.endswith(HEADS) and any(map(EMBEDDING.search, weights.tensors))
        if BESIDE.search(name) or beyond or again:
            continue
        pairs = name.endswith("_blocks") or (packed and tensor.dtype == "U8")  # two in a byte
        yield name, tensor, math.prod(tensor.shape) * (2 if pairs else 1)


def _method(config: Fields, weights: Weights, name: str) -> str | None:
    """How the checkpoint itself is quantised."""
    said = config.get("quantization_config")
    if not isinstance(said, dict):
        return None
    method = str(said.get("quant_method"))
    if weights.tensors and method not in COUNTED:
        raise PlanError(
            f"model {name!r}: its weights are packed by {method!r}, which is not read here; give a checkpoint in "
            f"bf16, or one of {', '.join(COUNTED)}"
        )
    return method


def _module(name: str) -> str:
    return name.removesuffix(".weight").removesuffix("_blocks").rpartition(".")[2]


def _target(name: str, modules: tuple[str, ...]) -> bool:
    """Whether an adapter may go to it."""
    return name.endswith(".weight") and _module(name) in modules and not _of_experts(name)


def _of_experts(name: str) -> bool:
    """Whether it belongs to experts that tokens choose: no linear modules but stacks of matrices."""
    return "experts" in name.split(".")
