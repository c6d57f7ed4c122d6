"""Facts of a language model from its JSON files and the header of its weights, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.registry import parameters
from runner.registry.family import Family
from runner.registry.language import PATCHES, Experts, Language
from runner.registry.source import Source
from runner.registry.weights import Weights
from runner.schema.errors import PlanError

Fields = dict[str, Any]
VOCABULARIES = {"vocab.json", "tokenizer.json", "tokenizer.model", "vocab.txt"}
SIDE_FILES = (
    "tokenizer.model",
    "vocab.txt",
    "chat_template.jinja",
    "chat_template.json",
    "video_preprocessor_config.json",
    "modules.json",
)
TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")  # what transformers takes first
SIZES = {  # fact -> config key; each a positive whole number
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "vocab_size": "vocab_size",
    "max_positions": "max_position_embeddings",
}
MOST = {"layers": 10_000}  # what is listed layer by layer must end; the deepest models have some hundreds


class Config:
    """A config with the defaults of its family: a key left out has one, a key set to null is null."""

    def __init__(self, config: Fields, defaults: Mapping[str, Any], name: str) -> None:
        self._config = config
        self._defaults = defaults
        self._name = name

    def get(self, *keys: str) -> Any:
        """The value of the first of ``keys`` that is there, else its default."""
        for values in (self._config, self._defaults):
            for key in keys:
                if key in values:
                    return values[key]
        return None

    def positive(self, *keys: str, most: int = 2**63 - 1) -> int:
        """A whole number above 0; raises PlanError."""
        value = self.get(*keys)
        if type(value) is not int or value <= 0:
            raise self.bad(keys[0], value, "a whole number above 0")
        if value > most:
            raise self.bad(keys[0], value, f"at most {most}")
        return value

    def count(self, key: str) -> int:
        """A whole number from 0 on, of which null is 0; raises PlanError."""
        value = self.get(key)
        if value is not None and (type(value) is not int or not 0 <= value < 2**63):
            raise self.bad(key, value, "a whole number from 0 on")
        return value or 0

    def bad(self, key: str, value: object, allowed: str) -> PlanError:
        """The error for a value that makes no sense."""
        return PlanError(f"model {self._name!r}: {key} must be {allowed}, got {value!r:.80}; mend config.json")


def facts(family: Family, text: Family, *, config: Fields, weights: Weights, source: Source, name: str) -> Fields:
    """What is known about a language model, JSON types only; ``text`` is the family of the text inside ``family``.

    Keys: those of SIZES; tied, head, text_family, images; attention, kv_heads, groups, head_dim, value_dim, latent,
    qk_norm, sinks, softcap_attention, softcap_logits; sliding_window (tokens), sliding_layers (their numbers); norm,
    norm_place, norm_eps, activation, gated, bias {qkv, o, mlp}, scales; experts {count, per_token, intermediate,
    shared, layers} or None; rope; those of parameters.facts; lora_pattern, chat_template, stop_tokens, patches [{patch,
    wanted, needs}]; and lacks, {what: in words}. Raises PlanError where the config makes no sense.
    """
    try:
        return _facts(family, text, config=config, weights=weights, source=source, name=name)
    except (TypeError, AttributeError, OverflowError) as error:  # of keys that nothing below checks by name
        raise PlanError(
            f"model {name!r}: a value in its config.json is of the wrong type ({error}); mend it"
        ) from error


def _facts(family: Family, text: Family, *, config: Fields, weights: Weights, source: Source, name: str) -> Fields:
    language, inside = text.language, config.get("text_config")
    assert language is not None
    nested = inside if isinstance(inside, dict) else config
    read = Config(nested, text.defaults, name)
    tied = Config({**nested, **config}, {**text.defaults, **family.defaults}, name).get("tie_word_embeddings")
    found: Fields = {fact: read.positive(key, most=MOST.get(fact, 2**63 - 1)) for fact, key in SIZES.items()}
    found |= {"tied": bool(tied), "head": language.head, "text_family": text.name, "images": _images(config, weights)}
    found |= _attention(language, read, found) | _windows(language, read, found["layers"]) | _blocks(language, read)
    found["experts"] = _experts(language.experts, read, found["layers"])
    found["rope"] = _rope(read) if language.positions == "rope" else None
    counts = parameters.facts(
        weights, config=config, language=language, layers=found["layers"], tied=found["tied"], name=name
    )
    has_head = counts.pop("has_head")
    found |= counts | {"lora_pattern": _pattern(family, counts["lora_targets"])}
    found |= {"chat_template": _template(source), "stop_tokens": _stops(source, nested, config, name)}
    found["patches"] = _patches(language, found)
    if language.head and not found["tied"] and not has_head:
        found["lacks"] = {"head": "no language-model head"}
    return found


def _attention(language: Language, read: Config, found: Fields) -> Fields:
    """Heads and their widths. Latent attention (DeepSeek-AI 2024, 2.1) has its own for keys and for values."""
    heads = found["heads"]
    if language.attention == "latent":
        rotated = read.positive("qk_rope_head_dim")
        width, value = read.positive("qk_nope_head_dim") + rotated, read.positive("v_head_dim")
        latent = {"kv": read.positive("kv_lora_rank"), "q": read.get("q_lora_rank"), "rope": rotated}
        return {"kv_heads": heads, "groups": 1, "head_dim": width, "value_dim": value, "latent": latent} | _fixed(
            language, read
        )
    shared = read.get("num_key_value_heads")
    kv_heads = heads if shared is None else shared
    if type(kv_heads) is not int or kv_heads <= 0 or heads % kv_heads:
        raise read.bad("num_key_value_heads", kv_heads, f"a divisor of num_attention_heads {heads}")
    width = read.get("head_dim")
    if width is None and found["hidden"] % heads:
        raise read.bad("hidden_size", found["hidden"], f"a multiple of num_attention_heads {heads}")
    width = found["hidden"] // heads if width is None else read.positive("head_dim")
    sizes = {"kv_heads": kv_heads, "groups": heads // kv_heads, "head_dim": width, "value_dim": width, "latent": None}
    return sizes | _fixed(language, read)


def _fixed(language: Language, read: Config) -> Fields:
    return {
        "attention": language.attention,
        "qk_norm": language.qk_norm,
        "sinks": language.sinks,
        "softcap_attention": read.get("attn_logit_softcapping"),
        "softcap_logits": read.get("final_logit_softcapping"),
    }


def _windows(language: Language, read: Config, layers: int) -> Fields:
    """The sliding window in tokens and the layers that have it: the config's list, else the family's rule."""
    size = read.get("sliding_window", "local_attention")
    if size is None or language.window == "none" or read.get("use_sliding_window") is False:
        return {"sliding_window": None, "sliding_layers": []}
    size = read.positive("sliding_window", "local_attention")
    listed = read.get("layer_types")
    if isinstance(listed, list):
        rule = [kind == "sliding_attention" for kind in listed]
        if len(rule) != layers:
            raise read.bad("layer_types", len(rule), f"a list of num_hidden_layers {layers} entries")
    else:
        rule = [_slides(language, read, layer) for layer in range(layers)]
    where = [layer for layer, slides in enumerate(rule) if slides]
    return {"sliding_window": size if where else None, "sliding_layers": where}


def _slides(language: Language, read: Config, layer: int) -> bool:
    """What transformers takes for configs without ``layer_types``."""
    match language.window:
        case "even":
            return layer % 2 == 0
        case "pattern":
            return (layer + 1) % read.positive("sliding_window_pattern", "_sliding_window_pattern") != 0
        case "after":
            return layer >= read.positive("max_window_layers")
        case "thirds":
            return layer % read.positive("global_attn_every_n_layers") != 0
        case "no_rope":
            return layer in _unrotated(read)
        case _:
            return True


def _unrotated(read: Config) -> list[int]:
    """Layers without rotary positions (SmolLM3): the config's list of 1 and 0, else every so many."""
    listed, step = read.get("no_rope_layers"), read.count("no_rope_layer_interval")
    if isinstance(listed, list):
        return [layer for layer, rotated in enumerate(listed) if not rotated]
    return [layer for layer in range(read.positive(SIZES["layers"])) if step and (layer + 1) % step == 0]


def _blocks(language: Language, read: Config) -> Fields:
    """Norms, activation, biases, and multipliers in the forward pass."""
    activation = read.get(language.activation)
    if not isinstance(activation, str):
        raise read.bad(language.activation, activation, "the name of an activation")
    bias = {part: bool(read.get(said) if isinstance(said, str) else said) for part, said in language.bias.items()}
    return {
        "norm": language.norm,
        "norm_place": language.norm_place,
        "norm_eps": read.get(language.norm_eps),
        "activation": activation,
        "gated": language.gated,
        "bias": {"qkv": False, "o": False, "mlp": False} | bias,
        "scales": {key: read.get(key) for key in language.scales},
    }


def _experts(layout: Experts | None, read: Config, layers: int) -> Fields | None:
    if layout is None:
        return None
    dense = set(range(min(layers, read.count(layout.dense_first)))) if layout.dense_first else set()
    if layout.every:
        step, listed = read.positive("decoder_sparse_step"), read.get("mlp_only_layers") or []
        if not isinstance(listed, list):
            raise read.bad("mlp_only_layers", listed, "a list of layers")
        dense = {layer for layer in range(layers) if (layer + 1) % step} | set(listed)
    return {
        "count": read.positive(*layout.count),
        "per_token": read.positive("num_experts_per_tok"),
        "intermediate": read.positive(layout.width),
        "shared": read.count(layout.shared) if layout.shared else 0,
        "layers": [layer for layer in range(layers) if layer not in dense],
    }


def _rope(read: Config) -> Fields:
    """``{type, theta, ...}``, or that by layer type where layers differ; of both ways that transformers wrote it."""
    given = read.get("rope_parameters")
    if isinstance(given, dict) and given and all(isinstance(part, dict) for part in given.values()):
        return {kind: _rope_of(part, read) for kind, part in given.items()}
    old = read.get("rope_scaling")
    whole = _rope_of({**(old if isinstance(old, dict) else {}), **(given if isinstance(given, dict) else {})}, read)
    if (local := read.get("rope_local_base_freq", "local_rope_theta")) is not None:
        theta = read.get("rope_theta", "global_rope_theta")
        return {"full_attention": whole | {"theta": theta}, "sliding_attention": {"type": "default", "theta": local}}
    without = _unrotated(read)
    return whole | ({"layers_without": without} if without else {})


def _rope_of(part: Fields, read: Config) -> Fields:
    kind = part.get("rope_type") or part.get("type") or "default"
    theta = part.get("rope_theta", read.get("rope_theta"))
    partial = part.get("partial_rotary_factor", read.get("partial_rotary_factor"))
    rest = {key: value for key, value in part.items() if key not in {"rope_type", "type", "rope_theta"}}
    rest = {key: value for key, value in rest.items() if not isinstance(value, list) or len(value) <= 4}
    return {"type": kind, "theta": theta, **rest, **({} if partial is None else {"partial_rotary_factor": partial})}


def _images(config: Fields, weights: Weights) -> bool:
    """Whether it has a tower for images: by its weights, and by its config where they are not open to us."""
    if weights.tensors:
        return any(parameters.of_images(name) for name in weights.tensors)
    return isinstance(config.get("vision_config"), dict)


def _pattern(family: Family, targets: list[str]) -> str:
    """A regex over whole module names for PEFT's ``target_modules``: other towers and heads may use the same words."""
    inside = family.language.lora_inside if family.language else ""
    scope = rf"{inside}\." if inside else ""
    return rf"(?:.*\.)?{scope}layers?\.\d+\.(?:.*\.)?(?:{'|'.join(targets)})"


def _template(source: Source) -> str | None:
    """The file that brings the chat template; None for a model without, which must be told one."""
    for path in TEMPLATES:
        if path in source.files and (path.endswith(".jinja") or source.json(path).get("chat_template")):
            return path
    return None


def _stops(source: Source, text: Fields, config: Fields, name: str) -> list[int]:
    """Ids of the tokens that end a turn: of generation_config.json, else of config.json."""
    path = "generation_config.json"
    given = source.json(path).get("eos_token_id") if path in source.files else None
    for fallback in (config, text):
        given = fallback.get("eos_token_id") if given is None else given
    if type(given) is int:
        return [given]
    if given is not None and not isinstance(given, list):
        raise PlanError(
            f"model {name!r}: eos_token_id must be a token's number or a list of them, got {given!r:.80}; mend "
            "generation_config.json or config.json"
        )
    return [one for one in given or () if type(one) is int]


def _patches(language: Language, found: Fields) -> list[Fields]:
    return [
        {"patch": name, "wanted": PATCHES[name].when(found), "needs": PATCHES[name].needs} for name in language.patches
    ]
