"""torch's scaled_dot_product_attention: each of its kernels by name on GPUs, document after document, and on CPUs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad, scaled_dot_product_attention

from runner.kernels.attention.call import Backend, Call, Inputs, first, needs_documents, repeated
from runner.kernels.attention.plain import Attend, one_by_one, whole

# Scores from which values are widened for the kernel of CPUs, which wants them as wide as keys. 4 heads of 192 and 128
# in fp32 on one thread of a Xeon, forward / both ways in ms, as they are and widened: 128 tokens 0.9 / 2.2 and 1.1 /
# 3.9, 512 tokens 16 / 26 and 8 / 31, 768 tokens 25 / 59 and 14 / 51, 1024 tokens 75 / 144 and 24 / 125
WIDEN = 768 * 768
LAUNCHES = 64  # documents that a GPU may be given one by one: each waits for the one before


def _refusal(call: Call) -> str | None:
    return first(
        "has no softcap" if call.softcap is not None else None,
        "knows no attention sinks on GPUs" if call.sinks and call.device != "cpu" else None,
        "reads no pages" if call.pages else None,
    )


def _attend(inputs: Inputs, *, shares: bool = True) -> Attend:
    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, leans: bool) -> Tensor:
        (queries, width), values = query.shape[2:], value.shape[3]
        leans = leans and mask is None
        if inputs.sinks is not None:
            query, key, value, mask = _with_sinks(query, key, value, mask, inputs.sinks / inputs.scale, leans)
        if values < width and not query.is_cuda and queries * key.shape[2] >= WIDEN:
            value = pad(value, (0, key.shape[3] - value.shape[3]))
        heads, shared = query.shape[1], query.shape[1] != key.shape[1]
        # with a mask no fast kernel of torch shares keys among heads, and the efficient one never does
        if shared and (mask is not None or not shares):
            key, value, shared = repeated(key, heads), repeated(value, heads), False
        out = scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=inputs.dropout,
            is_causal=leans,
            scale=inputs.scale,
            enable_gqa=shared,
        )
        return out[:, :, -queries:, :values]

    return attend


def _with_sinks(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scores: Tensor, leans: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """A sink as the first key, which adds nothing: it meets a feature of its own in queries, which holds its score.

    Causal rows stay square by one more query. 8 heads of 64 with 2 for keys, causal in fp32 on one thread of a Xeon,
    forward / both ways in ms, so and by one more column of scores, as transformers has it: 64 tokens 0.4 / 1.4 and
    0.5 / 1.6, 256 tokens 2.5 / 8.2 and 8.0 / 12, 1024 tokens 23 / 163 and 239 / 588.
    """
    own = scores.to(query.dtype)[:, None, None].expand(*query.shape[:3], 1)
    query = pad(torch.cat([query, own], 3), (0, 0, int(leans), 0))
    sink = pad(key.new_ones(*key.shape[:2], 1, 1), (key.shape[3], 0))
    key = torch.cat([sink, pad(key, (0, 1))], 2)
    value = pad(value, (0, max(0, query.shape[3] - value.shape[3]), 1, 0))
    if mask is not None:
        mask = pad(mask, (1, 0), value=True if mask.dtype == torch.bool else 0.0)
    return query, key, value, mask


def _by(kernel: SDPBackend | None) -> Callable[[Inputs], Tensor]:
    def run(inputs: Inputs) -> Tensor:
        with nullcontext() if kernel is None else sdpa_kernel(kernel):
            return whole(inputs, _attend(inputs, shares=kernel is not SDPBackend.EFFICIENT_ATTENTION))

    return run


def _on_gpus(call: Call) -> str | None:
    return None if call.device == "cuda" else f"is a kernel for GPUs, this is {call.device}"


def _any_refusal(call: Call) -> str | None:
    return _refusal(call) or ("on a GPU its kernels stand for themselves" if call.device == "cuda" else None)


def _documents_refusal(call: Call) -> str | None:
    many = call.device == "cuda" and call.documents > LAUNCHES
    return first(_refusal(call), needs_documents(call), f"more than {LAUNCHES} launches" if many else None)


def _half_refusal(call: Call) -> str | None:
    return first(_refusal(call), _on_gpus(call), "takes 16 bits" if call.dtype == "float32" else None)


def _flash_refusal(call: Call) -> str | None:
    return first(
        _half_refusal(call),
        None if call.mask == "free" else "takes no mask",
        "needs values as wide as keys" if call.value_dim != call.head_dim else None,
    )


ANY = Backend(name="sdpa", refusal=_any_refusal, run=_by(None))
DOCUMENTS = Backend(
    name="sdpa_documents", refusal=_documents_refusal, run=lambda inputs: one_by_one(inputs, _attend(inputs))
)
CUDNN = Backend(name="sdpa_cudnn", refusal=_half_refusal, run=_by(SDPBackend.CUDNN_ATTENTION))
FLASH = Backend(name="sdpa_flash", refusal=_flash_refusal, run=_by(SDPBackend.FLASH_ATTENTION))
EFFICIENT = Backend(
    name="sdpa_efficient",
    refusal=lambda call: _refusal(call) or _on_gpus(call),
    run=_by(SDPBackend.EFFICIENT_ATTENTION),
)
MATH = Backend(name="sdpa_math", refusal=_refusal, run=_by(SDPBackend.MATH))
