"""What training a language model needs in memory, in bytes, from its facts: an estimate, without torch.

It is that of plain transformers on one device; kernels save some of it. A tower for images stays as it is and its
activations are not counted, nor are the device's context, its libraries' workspaces and fragmentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from runner.schema.errors import PlanError

Facts = Mapping[str, Any]
Precision = Literal["bf16", "fp16", "fp32"]
Quantize = Literal["none", "nf4", "int4", "int8", "fp8", "fp8_block"]
WIDTH: Mapping[str, int] = {"bf16": 2, "fp16": 2, "fp32": 4}  # bytes
CHUNK = 1024  # tokens whose logits a chunked loss holds at a time


def forecast(
    facts: Facts,
    *,
    seq_len: int = 2048,
    batch: int = 1,
    rank: int | None = None,
    precision: Precision = "bf16",
    quantize: Quantize = "none",
) -> dict[str, Any]:
    """Bytes by what holds them; ``rank`` is that of LoRA on the family's `auto` targets, None trains all weights.

    Keys: parameters, trainable_parameters, weights, gradients, optimizer, activations {kept, checkpointed}, logits
    {whole, chunked}, total {plain, saving}, max_documents. Raises PlanError where it cannot be trained like that.
    """
    trained, held = trainable(facts, rank), quantize != "none" or facts["quantised"]
    if rank is None and held:
        how = quantize if quantize != "none" else facts["quantised"]
        raise PlanError(f"weights quantised to {how!r} cannot be trained themselves; train an adapter (lora:16)")
    width = WIDTH[precision]
    base = facts["weights_bytes"] if facts["quantised"] and quantize == "none" else weights(facts, width, quantize)
    # trained in 16 bits a weight has its gradient in 16 bits and a master copy in fp32 beside Adam's two moments:
    # 2 + 2 + 12 bytes; in fp32, as adapters always are, 4 + 4 + 8 (Rajbhandari et al. 2020, ZeRO, section 3.1)
    narrow = rank is None and width == 2
    fixed = {
        "weights": base + (0 if rank is None else 4 * trained),
        "gradients": trained * (2 if narrow else 4),
        "optimizer": trained * (12 if narrow else 8),
    }
    tokens = seq_len * batch
    layer = activations(facts, width)
    kept, again = tokens * layer * facts["layers"], tokens * facts["hidden"] * width * facts["layers"]
    whole, chunked = logits(facts, tokens, width), logits(facts, min(CHUNK, tokens), width)
    least = sum(fixed.values()) + again + max(tokens * layer, chunked)  # one layer is computed again at a time
    return {
        "estimate": True,
        "seq_len": seq_len,
        "batch": batch,
        "adapter": "none" if rank is None else f"lora:{rank}",
        "precision": precision,
        "quantize": quantize,
        "parameters": facts["parameters"],
        "trainable_parameters": trained,
        **fixed,
        "activations": {"kept": kept, "checkpointed": again + tokens * layer},
        "logits": {"whole": whole, "chunked": chunked},
        "total": {"plain": sum(fixed.values()) + kept + whole, "saving": least},
        "max_documents": max_documents(facts, tokens),
    }


def trainable(facts: Facts, rank: int | None) -> int:
    """Parameters that are trained. LoRA (Hu et al. 2021): A of rank x inputs and B of outputs x rank a linear layer."""
    if rank is None:
        return int(facts["parameters"] - facts["vision_parameters"])
    if facts["lora_width"] is None:
        raise PlanError("its weights do not show the widths of its layers (packed, or pickle); give them in bf16")
    return rank * int(facts["lora_width"])


def weights(facts: Facts, width: int, quantize: Quantize) -> int:
    """Bytes of the weights; of quantised ones the linear modules of the layers are; experts, routers, embeddings stay.

    nf4 with double quantisation: a code of 4 bits, a scale of 8 bits for 64 of them, an fp32 scale for 256 scales
    (Dettmers et al. 2023, QLoRA, section 3). int4: a 16-bit scale and an 8-bit zero for 128. int8 and fp8: an fp32
    scale a row, taken to be as long as the hidden size; fp8_block: one for 128 x 128. See `runner.kernels.formats`.
    """
    bits = {
        "none": 8.0 * width,
        "nf4": 4 + 8 / 64 + 32 / (64 * 256),
        "int4": 4 + (16 + 8) / 128,
        "int8": 8 + 32 / facts["hidden"],
        "fp8": 8 + 32 / facts["hidden"],
        "fp8_block": 8 + 32 / (128 * 128),
    }[quantize]
    packed = facts["quantisable_parameters"]
    return int((facts["parameters"] - packed) * width + packed * bits / 8)


def activations(facts: Facts, width: int) -> int:
    """Bytes that one layer keeps of one token for its backward pass; counted on transformers' Llama, to the byte.

    An RMS norm keeps its input in fp32, the normalised values and its output, a layer norm its input and its output;
    attention q, k, v, its output and the fp32 log-sum of each head (Dao 2023, FlashAttention-2, 3.1: no score matrix);
    the MLP its two inner values, the activated one and the product; experts that for each expert of the token, and its
    input and output. The way of counting is that of Korthikanti et al. 2022, section 4.1.
    """
    hidden, heads, both = facts["hidden"], facts["heads"], facts["head_dim"] + facts["value_dim"]
    norms = (4 if facts["norm_place"] == "around" else 2) * hidden
    if facts["qk_norm"]:
        norms += (heads + facts["kv_heads"]) * facts["head_dim"]
    attention = (heads + facts["kv_heads"]) * both * width + 4 * heads
    norm = 2 * width + (0 if facts["norm"] == "layer" else 4)
    return int(norms * norm + 8 + attention + _inner(facts) * width)


def _inner(facts: Facts) -> float:
    """Values that an MLP keeps of one token, the mean over layers with and without experts."""
    inner = 4 if facts["gated"] else 2
    dense = inner * facts["intermediate"]
    experts = facts["experts"]
    if experts is None:
        return float(dense)
    chosen = experts["per_token"] + experts["shared"]
    sparse = inner * chosen * experts["intermediate"] + 2 * experts["per_token"] * facts["hidden"]
    share = len(experts["layers"]) / facts["layers"]
    return float(share * sparse + (1 - share) * dense)


def logits(facts: Facts, tokens: int, width: int) -> int:
    """Bytes of the loss over ``tokens``: the logits, their fp32 copy, log-probabilities and the gradient in fp32."""
    copy = 4 if width < 4 else 0
    return int(tokens * facts["vocab_size"] * (width + copy + 8)) if facts["head"] else 0


def max_documents(facts: Facts, tokens: int) -> int:
    """Documents that a packed row of ``tokens`` may hold before FlashAttention-2's backward pass overflows.

    It indexes (tokens + 128 documents) x heads x head_dim, rounded up to 32, by int32.
    """
    row = facts["heads"] * -(-facts["head_dim"] // 32) * 32
    return max(0, int((((1 << 31) - 1) // row - tokens) // 128))


def rank_of(adapter: str) -> int | None:
    """The rank in ``lora:16``; None for ``none``. Raises PlanError."""
    kind, _, rank = adapter.partition(":")
    if adapter == "none":
        return None
    if kind != "lora" or not (rank.isascii() and rank.isdigit() and 0 < int(rank) <= 4096):
        raise PlanError(f"adapter must be none or lora:RANK with a rank of 1 to 4096, got {adapter!r}")
    return int(rank)


QUANTIZE = get_args(Quantize)
PRECISIONS = get_args(Precision)
