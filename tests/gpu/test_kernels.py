"""The tests of the kernels, function for function, on a GPU. `pytest -m gpu tests/gpu/test_kernels.py`."""

from __future__ import annotations

import os

import pytest
import torch

from tests.kernels.ops.test_combine_experts import *  # noqa: F403
from tests.kernels.ops.test_cross_entropy import *  # noqa: F403
from tests.kernels.ops.test_dequantise import *  # noqa: F403
from tests.kernels.ops.test_geglu import *  # noqa: F403
from tests.kernels.ops.test_grouped_linear import *  # noqa: F403
from tests.kernels.ops.test_layer_norm import *  # noqa: F403
from tests.kernels.ops.test_linear_cross_entropy import *  # noqa: F403
from tests.kernels.ops.test_lora_linear import *  # noqa: F403
from tests.kernels.ops.test_paged_attention import *  # noqa: F403
from tests.kernels.ops.test_qk_norm_rope import *  # noqa: F403
from tests.kernels.ops.test_rms_norm import *  # noqa: F403
from tests.kernels.ops.test_rope import *  # noqa: F403
from tests.kernels.ops.test_swiglu import *  # noqa: F403
from tests.kernels.ops.test_varlen_attention import *  # noqa: F403
from tests.kernels.test_experts import *  # noqa: F403

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted"),
]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it torch calls cuBLAS not deterministic
    return "cuda"
