"""FlashAttention 2, 3 and 4 where they are installed, through their functions for packed documents.

Versions 3 and 4 have been written from their signatures; calibration excludes what raises. Dao 2023 (arXiv 2307.08691),
Shah et al. 2024 (arXiv 2407.08608).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Tensor

from runner.kernels.attention.call import Backend, Call, Inputs, first, flat, needs_documents

Function = Callable[..., Any]


@cache
def _function(module: str) -> Function | str:
    """`flash_attn_varlen_func` of a module, or why there is none."""
    top = module.partition(".")[0]
    if importlib.util.find_spec(top) is None:
        return f"{top} is not installed"
    try:
        function: Function = importlib.import_module(module).flash_attn_varlen_func
    except (ImportError, AttributeError, OSError) as error:  # built for another torch, or without this part
        return f"{module} does not load: {type(error).__name__}: {error}"[:200]
    return function


def _common(call: Call, module: str) -> str | None:
    found = _function(module)
    return first(
        found if isinstance(found, str) else None,
        None if call.device == "cuda" else f"needs a GPU, this is {call.device}",
        "takes 16 bits" if call.dtype not in {"float16", "bfloat16"} else None,
        "needs values as wide as keys" if call.value_dim != call.head_dim else None,
        "knows no attention sinks" if call.sinks else None,
        "reads no pages" if call.pages else None,
        needs_documents(call),
    )


def _refusal_2(call: Call) -> str | None:
    return first(
        _common(call, "flash_attn"),
        "needs an Ampere GPU or newer" if call.capability < 80 else None,
        "holds heads of at most 256" if call.head_dim > 256 else None,
        "has no dropout under a softcap" if call.dropout and call.softcap is not None else None,
        "its backward pass would index past int32" if call.backward and call.overflows else None,
    )


def _refusal_3(call: Call) -> str | None:
    return first(
        _common(call, "flash_attn_interface"),
        "is made for Hopper" if call.capability // 10 != 9 else None,
        "holds heads of at most 256" if call.head_dim > 256 else None,
        "has no dropout" if call.dropout else None,
    )


def _refusal_4(call: Call) -> str | None:
    return first(
        _common(call, "flash_attn.cute"),
        "is made for Hopper and Blackwell" if call.capability // 10 not in {9, 10} else None,
        "holds heads of at most 128" if call.head_dim > 128 else None,
        "has no dropout" if call.dropout else None,
    )


def _run(inputs: Inputs, module: str, **options: Any) -> Tensor:
    function, documents = _function(module), inputs.documents
    assert not isinstance(function, str)
    found = function(
        *(flat(x) for x in inputs.tensors),
        cu_seqlens_q=documents.queries,
        cu_seqlens_k=documents.keys,
        max_seqlen_q=documents.longest_query,
        max_seqlen_k=documents.longest_key,
        softmax_scale=inputs.scale,
        causal=inputs.plan.pattern.causal,
        softcap=inputs.softcap or 0.0,
        **options,
    )
    out: Tensor = found[0] if isinstance(found, tuple) else found
    return out.view(inputs.query.shape[0], -1, *out.shape[1:])


def _window(inputs: Inputs, *, all_keys: int | None) -> tuple[int | None, int | None]:
    """Keys to the left and to the right of a query; theirs do not count the query's own."""
    window = inputs.plan.pattern.window
    back = all_keys if window is None else window - 1
    return back, 0 if inputs.plan.pattern.causal else back


FLASH_2 = Backend(
    name="flash2",
    refusal=_refusal_2,
    run=lambda inputs: _run(inputs, "flash_attn", dropout_p=inputs.dropout, window_size=_window(inputs, all_keys=-1)),
)
FLASH_3 = Backend(
    name="flash3",
    refusal=_refusal_3,
    run=lambda inputs: _run(inputs, "flash_attn_interface", window_size=_window(inputs, all_keys=-1)),
)
FLASH_4 = Backend(
    name="flash4",
    refusal=_refusal_4,
    run=lambda inputs: _run(inputs, "flash_attn.cute", window_size=_window(inputs, all_keys=None)),
)
