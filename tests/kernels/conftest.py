"""Kernels on a CPU: Triton's interpreter runs them where there is no GPU (`tests/conftest.py` asks for it in time).

The interpreter's bfloat16: loads and stores work, a store cuts off instead of rounding (the criterion allows for it),
`tl.dot` gives garbage. Kernels compute in fp32, so nothing else of it is met.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest
import torch

TRITON = importlib.util.find_spec("triton") is not None
if TRITON:
    from triton.runtime import interpreter


@pytest.fixture
def device() -> str:
    if not TRITON:
        pytest.skip("kernels need triton>=3.6, which is not installed")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("a GPU is here, where tests/gpu runs the same functions; TRITON_INTERPRET=1 forces the interpreter")
    return "cpu"


@pytest.fixture(autouse=True)
def _loops_to_a_bound_that_is_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scalars are arrays of one element in Triton 3.6's interpreter, which numpy 2.4 no longer takes for numbers."""
    if not TRITON:
        return
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        tensor.__index__ = lambda self: self.handle.data.item()  # undone with the rest of the scope

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)


@pytest.fixture(autouse=True)
def _seeded_anew() -> None:
    torch.seed()  # fresh inputs every time; the criterion is relative to torch's own error on them
