"""Every backend of attention that a GPU has, against the formula; and the choice among them by time."""

from __future__ import annotations

import pytest
import torch

from runner.kernels.attention import BACKENDS, choices, use_attention
from runner.kernels.attention.call import Inputs, call_of
from runner.kernels.attention.plan import unmasked
from tests.kernels.attention.models import both, inputs, model
from tests.kernels.attention.test_backends import truth

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
LENGTHS = {"rows": None, "documents": (700, 1, 300, 23)}


def made(layout: str, *, window: int | None, softcap: float | None, width: int, dtype: torch.dtype) -> Inputs:
    device = torch.device("cuda", torch.cuda.current_device())
    plan = unmasked(batch=1, queries=1024, keys=1024, causal=True, window=window, device=device)
    if (lengths := LENGTHS[layout]) is not None:
        edges = torch.tensor([0, *lengths], device=device).cumsum(0)
        plan = plan.cut(edges, edges, longest_query=700, longest_key=700)
    query = torch.randn(1, 8, 1024, width, device=device, dtype=dtype, requires_grad=True)
    key, value = (torch.randn(1, 2, 1024, width, device=device, dtype=dtype, requires_grad=True) for _ in range(2))
    return Inputs(query=query, key=key, value=value, plan=plan, scale=width**-0.5, softcap=softcap)


@pytest.mark.parametrize("width", [64, 128, 256])  # each has tiles of its own
@pytest.mark.parametrize("softcap", [None, 20.0])
@pytest.mark.parametrize("window", [None, 128])
@pytest.mark.parametrize("layout", LENGTHS)
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "paged"])
def test_a_backend_agrees_with_the_formula(
    backend: str, layout: str, window: int | None, softcap: float | None, width: int
) -> None:
    given = made(layout, window=window, softcap=softcap, width=width, dtype=torch.bfloat16)
    why = BACKENDS[backend].refusal(call_of(given))
    if why is not None:
        pytest.skip(f"{backend} {why}")
    out, true = BACKENDS[backend].run(given), truth(given)
    upstream = torch.randn_like(out)
    ours = [out, *torch.autograd.grad(out, given.tensors, upstream)]
    theirs = [true, *torch.autograd.grad(true, given.tensors, upstream.double())]
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.double() - other).abs().max() <= 0.02 * other.abs().max()


@pytest.mark.parametrize("kind", ["whole", "left", "packed"])
def test_a_model_attends_by_what_was_measured(kind: str) -> None:
    tiny = model("qwen2").to("cuda", torch.bfloat16)
    given, counts = inputs("qwen2", kind)
    given = {name: x.to("cuda") if isinstance(x, torch.Tensor) else x for name, x in given.items()}
    upstream = torch.randn(26, 40, device="cuda")
    truth_of_model = both(tiny, given, counts.cuda(), upstream)
    use_attention(tiny)
    found = both(tiny, given, counts.cuda(), upstream)
    for name, value in truth_of_model.items():
        assert (found[name] - value).abs().max() <= 0.1 * value.abs().max()
    assert all(len(line.milliseconds) > 1 for line in choices(tiny))
