"""`use_attention`: our attention for one model instance, and its way back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

from torch import nn
from transformers import PreTrainedConfig

from runner.kernels.attention.cache import heed
from runner.kernels.attention.dispatch import BACKENDS, Entry, Name, Session, register

WIDEST = 256


def use_attention(model: nn.Module, *, force: str | None = None, with_triton: bool | None = None) -> Callable[[], None]:
    """Attend by our function in every text layer of `model`; the function that is returned undoes it.

    The model's configs are replaced by copies, since transformers shares them between modules and between models; what
    is set on a config in between is gone when it is undone. Towers for images keep theirs. `force` names one of
    `BACKENDS` for all calls. In training no cache is made that nobody asked for (`runner.kernels.attention.cache`).
    Raises ValueError where the model's attention is not for us, or `force` is unknown.
    """
    if force is not None and force not in BACKENDS:
        raise ValueError(f"attention {force!r} is unknown; there are {', '.join(BACKENDS)}")
    must_suit(model)
    register()
    session = Session(force=force, with_triton=with_triton)
    holders = _holders(model)
    copies = _copies([config for _, config in holders], Name.of(session))
    names = [(module, module.__dict__["_attn_implementation"]) for module, _ in holders if _keeps_name(module)]
    for module, config in holders:
        module.config = copies[id(config)]
    for module, _ in names:
        module._attn_implementation = cast(Any, Name.of(session))
    heedless = heed(model)

    def undo() -> None:
        heedless()
        for module, config in holders:
            module.config = config
        for module, name in names:
            module._attn_implementation = name

    return undo


def choices(model: nn.Module) -> list[Entry]:
    """What computed the attention of `model` so far, by shape of call, since `use_attention`."""
    for _, config in _holders(model):
        if isinstance(config._attn_implementation, Name):
            return config._attn_implementation.session.ledger
    return []


def must_suit(model: nn.Module) -> None:
    """Raises ValueError with the reason where the attention of `model` is not for us."""
    holders = _holders(model)
    if not holders:
        raise ValueError(f"{type(model).__name__} has no config of transformers: its attention cannot be chosen")
    if not any(hasattr(type(module), "_can_set_attn_implementation") for module, _ in holders):
        raise ValueError(f"{type(model).__name__} is no model of transformers: its attention cannot be chosen")
    for module, _ in holders:
        can = getattr(type(module), "_can_set_attn_implementation", None)
        if can is not None and not can():
            raise ValueError(f"{type(module).__name__} computes attention itself: its scores are biased or whole")
    for _, config in holders:
        if isinstance(config._attn_implementation, Name):
            raise ValueError("attention is in it already: undo that first")
        _must_suit(config)


def _must_suit(config: Any) -> None:
    if getattr(config, "index_topk", None) is not None:
        raise ValueError(f"{type(config).__name__} has an indexer, which computes with the mask: ours is no tensor")
    heads = getattr(config, "num_attention_heads", None)
    if getattr(config, "kv_lora_rank", None) is not None:  # head_dim is what is turned of it
        width = max(config.qk_nope_head_dim + config.qk_rope_head_dim, config.v_head_dim)
    else:
        width = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    if width > WIDEST:
        raise ValueError(f"{type(config).__name__} has heads of {width}; our kernels hold heads of at most {WIDEST}")


def _holders(model: nn.Module) -> list[tuple[nn.Module, Any]]:
    """Modules with a config of transformers that is not a tower's."""
    found = [(module, module.__dict__.get("config")) for module in model.modules()]
    held = [(module, config) for module, config in found if isinstance(config, PreTrainedConfig)]
    towers = {kind for _, config in held for kind in _towers(config)}
    return [(module, config) for module, config in held if type(config) not in towers]


def _towers(config: Any) -> set[type]:
    """Types of the configs inside one that are not its text's."""
    text = config.get_text_config()
    inside = [getattr(config, name, None) for name in config.sub_configs]
    return {type(one) for one in inside if one is not None and type(one) is not type(text)}


def _copies(configs: list[Any], name: Name) -> dict[int, Any]:
    """A copy of each config under our name, by the identity of the original; configs inside configs are copied once."""
    copies: dict[int, Any] = {}

    def copied(config: Any) -> Any:
        if id(config) not in copies:
            twin = copies[id(config)] = copy.copy(config)
            twin._attn_implementation_internal = name
            towers = _towers(config)
            for key in config.sub_configs:
                inside = getattr(config, key, None)
                if isinstance(inside, PreTrainedConfig) and type(inside) not in towers:
                    setattr(twin, key, copied(inside))
        return copies[id(config)]

    for config in configs:
        copied(config)
    return copies


def _keeps_name(module: nn.Module) -> bool:
    return isinstance(module.__dict__.get("_attn_implementation"), str)
