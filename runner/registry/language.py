"""`Language`: what a family of text models adds to `Family`, as data; and the patches that a model may get."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Facts = Mapping[str, Any]
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
GATED_MLP = ("gate_proj", "up_proj", "down_proj")
SILU = frozenset({"silu", "swish"})
GELU = frozenset({"gelu", "gelu_python", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_new", "gelu_fast"})
GELU |= {"gelu_accurate"}  # quick_gelu and gelu_10 are other functions


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A kernel that may be put into a model, and what it needs to be put there."""

    needs: str  # in words
    when: Callable[[Facts], bool]  # the same over the facts of a model


def _turns(rope: Facts | None, layers: int) -> bool:
    """Whether a layer has rotary positions: over a part of the head or in sections, what turns is a table a token."""
    return rope is not None and len(rope.get("layers_without", ())) < layers


def _mlps(found: Facts, activations: frozenset[str]) -> bool:
    """Whether there are MLPs outside experts, with one of these activations on their gate."""
    experts = found["experts"]
    outside = experts is None or bool(experts["shared"]) or len(experts["layers"]) < found["layers"]
    return outside and found["gated"] and found["activation"] in activations


# Wanted patches by name. What a family wants and a model does not meet is shown as such, never dropped in silence.
PATCHES: Mapping[str, Patch] = {
    "attention": Patch(
        needs="heads of at most 256, of keys and of values",
        when=lambda f: max(f["head_dim"], f["value_dim"]) <= 256,
    ),
    "rms_norm": Patch(needs="RMS norms", when=lambda f: f["norm"].startswith("rms")),
    "layer_norm": Patch(needs="layer norms", when=lambda f: f["norm"] == "layer"),
    "rope": Patch(
        needs="rotary positions in pairs half a head apart, in attention that is not latent",
        when=lambda f: f["attention"] != "latent" and _turns(f["rope"], f["layers"]),
    ),
    "qk_norm_rope": Patch(needs="query and key norms over one head", when=lambda f: f["qk_norm"] == "head"),
    "swiglu": Patch(needs="MLPs with a gate of silu outside experts", when=lambda f: _mlps(f, SILU)),
    "geglu": Patch(needs="MLPs with a gate of gelu outside experts", when=lambda f: _mlps(f, GELU)),
    "linear_cross_entropy": Patch(needs="a language-model head", when=lambda f: f["head"]),
    "experts": Patch(needs="experts", when=lambda f: bool(f["experts"] and f["experts"]["layers"])),
    "lora_linear": Patch(needs="linear layers that an adapter goes to", when=lambda f: bool(f["lora_targets"])),
}
DECODER = ("attention", "rms_norm", "rope", "swiglu", "linear_cross_entropy", "lora_linear")
GEGLU_DECODER = tuple("geglu" if name == "swiglu" else name for name in DECODER)
QK_DECODER = tuple("qk_norm_rope" if name == "rope" else name for name in DECODER)  # both at once would clash
ENCODER = ("attention", "layer_norm", "lora_linear")


@dataclass(frozen=True, kw_only=True)
class Experts:
    """Where a config keeps the layout of its experts."""

    count: tuple[str, ...]  # config keys, the first that is there counts
    width: str  # config key of an expert's inner width
    dense_first: str = ""  # config key: that many layers at the start have none
    shared: str = ""  # config key: experts that every token goes through
    every: bool = False  # decoder_sparse_step and mlp_only_layers say which layers have them


@dataclass(frozen=True, kw_only=True)
class Language:
    """The facts that no config says, and the keys of those that it does. ``Family.defaults`` fills keys left out."""

    gguf: str | None  # architecture in a GGUF file; None where llama.cpp has none
    patches: tuple[str, ...] = DECODER  # names in PATCHES
    lora: tuple[str, ...] = (*ATTENTION, *GATED_MLP)  # modules that `auto` may mean; those that a model has are taken
    lora_inside: str = ""  # path component that they must lie under, where another tower has modules of these names
    norm: Literal["rms", "rms, 1 + weight", "layer"] = "rms"
    norm_place: Literal["before", "after", "around"] = "before"  # each block: its input, its output, or both
    norm_eps: str = "rms_norm_eps"  # config key
    activation: str = "hidden_act"  # config key
    gated: bool = True  # two projections into the MLP, one of them through the activation
    qk_norm: Literal["head", "projection"] | None = None  # norms of queries and keys: over a head, or over all of them
    bias: Mapping[str, bool | str] = field(default_factory=dict)  # qkv, o, mlp: fixed, or the config key that says it
    window: Literal["none", "all", "even", "pattern", "after", "thirds", "no_rope"] = "none"  # layers with a window
    attention: Literal["grouped", "latent", "both ways"] = "grouped"
    sinks: bool = False
    experts: Experts | None = None
    positions: Literal["rope", "learned", "relative"] = "rope"
    scales: tuple[str, ...] = ()  # config keys of multipliers in the forward pass that a patch must respect
    head: bool = True  # predicts tokens
    template: str = "the tokenizer's own"  # where its chat template comes from
    stops: tuple[str, ...] = ()  # tokens that end a turn, in words; generation_config.json decides
