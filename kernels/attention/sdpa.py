"""torch's scaled_dot_product_attention: each of its kernels by name on GPUs, document after document, and on CPUs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from runner.kernels.attention.call import Backend, Call, Inputs, first, needs_documents, repeated
from runner.kernels.attention.plain import Attend, one_by_one, whole

LAUNCHES = 64  # documents that a GPU may be given one by one: each waits for the one before


def _refusal(call: Call) -> str | None:
    return first("has no softcap" if call.softcap is not None else None, "reads no pages" if call.pages else None)


def _attend(inputs: Inputs) -> Attend:
    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, leans: bool) -> Tensor:
        heads, shared = query.shape[1], query.shape[1] != key.shape[1]
        # with a mask no fast kernel of torch shares keys among heads
        if shared and mask is not None:
            key, value, shared = repeated(key, heads), repeated(value, heads), False
        return scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=inputs.dropout,
            is_causal=leans and mask is None,
            scale=inputs.scale,
            enable_gqa=shared,
        )

    return attend


def _by(kernel: SDPBackend | None) -> Callable[[Inputs], Tensor]:
    def run(inputs: Inputs) -> Tensor:
        with nullcontext() if kernel is None else sdpa_kernel(kernel):
            return whole(inputs, _attend(inputs))

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
    return _half_refusal(call) or (None if call.mask == "free" else "takes no mask")


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
