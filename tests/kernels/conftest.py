"""Kernels on a CPU: Triton's interpreter runs them where there is no GPU (`tests/conftest.py` asks for it in time).

Three things of the interpreter (3.6 to 3.9) are mended here, so that it computes as a GPU does, and sooner. What stays:
`tl.dot` on bfloat16 gives garbage (`runner.kernels.launch.interpreted`).
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np
import pytest
import torch

TRITON = importlib.util.find_spec("triton") is not None
if TRITON:
    import triton.language as tl
    from triton.runtime import interpreter

    PATCH_LANG, PATCH_TENSOR, CONVERT = (
        interpreter._patch_lang,
        interpreter._patch_lang_tensor,
        interpreter._convert_float,
    )


@pytest.fixture
def device() -> str:
    if not TRITON:
        pytest.skip("kernels need triton>=3.6, which is not installed")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("a GPU is here, where tests/gpu runs the same functions; TRITON_INTERPRET=1 forces the interpreter")
    return "cpu"


@pytest.fixture(autouse=True)
def _mended(monkeypatch: pytest.MonkeyPatch) -> None:
    if TRITON:
        monkeypatch.setattr(interpreter, "_patch_lang", _patch_once)
        monkeypatch.setattr(interpreter, "_patch_lang_tensor", _patch_tensor)
        monkeypatch.setattr(interpreter, "_convert_float", _convert)


@pytest.fixture(autouse=True)
def _seeded_anew() -> None:
    torch.seed()  # fresh inputs every time; the criterion is relative to torch's own error on them


def _patch_once(function: Any) -> Any:
    """Functions that a kernel calls find the language patched: doing so again took 4 ms of each call."""
    languages = [one for one in (tl, tl.core) if any(value is one for value in function.__globals__.values())]
    if any(tl.core.is_builtin(one.load) for one in languages):
        return PATCH_LANG(function)
    return interpreter._LangPatchScope()


def _patch_tensor(tensor: Any, scope: Any) -> None:
    """Loops to a bound that is an argument: scalars are arrays of one element, no numbers to numpy 2.4."""
    PATCH_TENSOR(tensor, scope)
    tensor.__index__ = lambda self: self.handle.data.item()  # undone with the rest of the scope


def _convert(values: Any, given: Any, wanted: Any, rounding: Any) -> Any:
    """Bits of `values` in another dtype, to bfloat16 rounded as a GPU does: the interpreter cuts off what is over."""
    if (given, wanted) == (tl.bfloat16, tl.float32):
        return values.astype(np.uint32) << np.uint32(16)
    if (given, wanted) != (tl.float32, tl.bfloat16):
        return CONVERT(values, given, wanted, rounding)
    bits = values.view(np.uint32)
    even = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint32(0x7FC0), even).astype(np.uint16)
