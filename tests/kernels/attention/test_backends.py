"""What backends say they cannot do, that those which can agree, and that the choice is measured where it should be."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from runner.kernels import calibration
from runner.kernels.attention import BACKENDS, Pages, dispatch, sdpa
from runner.kernels.attention.call import Call, Inputs, call_of, overflows
from runner.kernels.attention.dispatch import Session
from runner.kernels.attention.plan import Plan, unmasked
from runner.kernels.attention.plan import given as given_mask
from runner.registry.forecast import max_documents

CPU = torch.device("cpu")
HERE = ["sdpa", "sdpa_documents", "sdpa_math", "plain", "plain_documents"]


def plan(lengths: tuple[int, ...], *, causal: bool, window: int | None, rows: int = 1) -> Plan:
    """A plan of rows that are cut into documents of these lengths."""
    total = sum(lengths) // rows
    edges = torch.tensor([0, *lengths]).cumsum(0)
    whole = unmasked(batch=rows, queries=total, keys=total, causal=causal, window=window, device=CPU)
    return whole.cut(edges, edges, longest_query=max(lengths), longest_key=max(lengths))


def inputs(
    made: Plan, *, heads: int = 4, kv_heads: int = 2, width: int = 8, values: int | None = None, **options: Any
) -> Inputs:
    """Random tensors under a plan."""
    rows, _, queries, keys = made.shape
    query = torch.randn(rows, heads, queries, width, requires_grad=True)
    key, value = (torch.randn(rows, kv_heads, keys, size, requires_grad=True) for size in (width, values or width))
    return Inputs(query=query, key=key, value=value, plan=made, scale=width**-0.5, **options)


def truth(given: Inputs) -> Tensor:
    """Attention in fp64 by its formula, under the plan's dense mask."""
    query, key, value = (x.double() for x in given.tensors)
    groups = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(groups, 1).mT * given.scale
    if given.softcap is not None:
        scores = given.softcap * torch.tanh(scores / given.softcap)
    scores = scores.masked_fill(~given.plan.dense, -math.inf)
    if given.sinks is not None:
        scores = torch.cat([scores, given.sinks.double()[:, None, None].expand(*scores.shape[:3], 1)], -1)
    weights = scores.softmax(-1)[..., : key.shape[2]]
    return (weights @ value.repeat_interleave(groups, 1)).transpose(1, 2)


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("lengths", [(12,), (5, 1, 6), (7, 5)], ids=str)
def test_backends_agree_with_the_formula(
    lengths: tuple[int, ...], causal: bool, window: int | None, softcap: float | None, backend: str
) -> None:
    given = inputs(plan(lengths, causal=causal, window=window), softcap=softcap)
    why = BACKENDS[backend].refusal(call_of(given))
    if why is not None:
        assert (why, softcap, backend[:4]) == ("has no softcap", 3.0, "sdpa")
        return
    must_agree(given, backend)


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("width", [8, 5])
@pytest.mark.parametrize("values", [3, 8])
@pytest.mark.parametrize("sinks", [True, False])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("lengths", [(12,), (5, 1, 6)], ids=str)
def test_sinks_and_values_of_another_width(
    lengths: tuple[int, ...], window: int | None, sinks: bool, values: int, width: int, backend: str
) -> None:
    own = torch.randn(4, requires_grad=True) if sinks else None
    for causal in (True, False):
        made = plan(lengths, causal=causal, window=window)
        must_agree(inputs(made, width=width, values=values, sinks=own), backend)


@pytest.mark.parametrize("backend", HERE)
def test_values_are_widened_where_it_pays(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdpa, "WIDEN", 1)
    must_agree(inputs(plan((5, 1, 6), causal=True, window=None), values=3), backend)


def test_our_kernel_takes_sinks_and_values_of_another_width(device: str) -> None:
    """In the interpreter where there is no GPU."""
    cpu = inputs(plan((5, 1, 6), causal=True, window=4), values=3, sinks=torch.randn(4, requires_grad=True))
    moved = {name: x.detach().to(device).requires_grad_() for name, x in cpu.differentiable.items()}
    edges = torch.tensor([0, 5, 6, 12], device=device)
    whole = unmasked(batch=1, queries=12, keys=12, causal=True, window=4, device=torch.device(device))
    made = whole.cut(edges, edges, longest_query=6, longest_key=6)
    given = Inputs(**cpu.__dict__ | moved | {"plan": made, "with_triton": True})
    assert BACKENDS["varlen"].refusal(call_of(given)) is None
    must_agree(given, "varlen")


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [None, 4])
def test_flex_takes_sinks_forward(window: int | None) -> None:
    made = inputs(plan((5, 1, 6), causal=True, window=window), values=3, sinks=torch.randn(4))
    given = Inputs(**made.__dict__ | {name: x.detach() for name, x in made.differentiable.items()})
    assert BACKENDS["flex"].refusal(call_of(given)) is None
    torch.testing.assert_close(BACKENDS["flex"].run(given).double(), truth(given), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("backend", ["plain", "sdpa"])
def test_a_query_without_keys_leaves_all_to_the_sink(backend: str) -> None:
    seen = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril(-1)
    blind = given_mask(seen, batch=1, queries=4, keys=4)
    given = inputs(blind, sinks=torch.randn(4, requires_grad=True))
    assert not BACKENDS[backend].run(given)[:, 0].any()
    must_agree(given, backend)


def must_agree(given: Inputs, backend: str) -> None:
    """Outputs and all gradients are those of the formula."""
    out, true = BACKENDS[backend].run(given), truth(given)
    upstream = torch.randn_like(out)
    torch.testing.assert_close(out.double(), true, atol=1e-6, rtol=1e-5)
    asked = tuple(given.differentiable.values())
    ours = torch.autograd.grad(out, asked, upstream)
    theirs = torch.autograd.grad(true, asked, upstream.double())
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", HERE)
def test_fewer_queries_than_keys_stand_at_the_last_keys(backend: str) -> None:
    whole = plan((12,), causal=True, window=None)
    given = inputs(whole)
    edges = torch.tensor([0, 3]), torch.tensor([0, 12])
    short = unmasked(batch=1, queries=3, keys=12, causal=True, window=None, device=CPU)
    last = Inputs(
        **given.__dict__ | {"query": given.query[:, :, -3:], "plan": short.cut(*edges, longest_query=3, longest_key=12)}
    )
    torch.testing.assert_close(BACKENDS[backend].run(last), truth(given)[:, -3:].float(), atol=1e-6, rtol=1e-5)


def gpu(**changes: Any) -> Call:
    """A call as a Hopper GPU would see it."""
    call = call_of(inputs(plan((5, 7), causal=True, window=None)))
    hopper = {"device": "cuda", "capability": 90, "triton": True, "dtype": "bfloat16", "pays": False}
    return Call(**call.__dict__ | hopper | changes)


@pytest.mark.parametrize(
    ("backend", "changes", "words"),
    [
        ("varlen", {"head_dim": 320}, "at most 256"),
        ("varlen", {"dropout": True}, "has no dropout"),
        ("varlen", {"mask": "a mask with odd"}, "needs documents, there is a mask with odd"),
        ("varlen", {"pages": True}, "reads no pages"),
        ("varlen", {"triton": False}, "do not run on cuda"),
        ("paged", {}, "there are no pages"),
        ("paged", {"pages": True}, "one query a row"),
        ("paged", {"pages": True, "queries": 1, "backward": True}, "no backward pass"),
        ("sdpa", {}, "its kernels stand for themselves"),
        ("sdpa_flash", {}, "takes no mask"),
        ("sdpa_flash", {"mask": "free", "value_dim": 4}, "as wide as keys"),
        ("sdpa_math", {"sinks": True}, "knows no attention sinks on GPUs"),
        ("sdpa_documents", {"sinks": True}, "knows no attention sinks on GPUs"),
        ("sdpa_cudnn", {"dtype": "float32"}, "takes 16 bits"),
        ("sdpa_efficient", {"softcap": 2.0}, "has no softcap"),
        ("sdpa_documents", {"documents": 128}, "more than 64 launches"),
        ("flex", {"dropout": True}, "has no dropout"),
        ("plain", {"pages": True}, "reads no pages"),
    ],
)
def test_refusals_on_a_gpu(backend: str, changes: Mapping[str, Any], words: str) -> None:
    why = BACKENDS[backend].refusal(gpu(**changes))
    assert why is not None
    assert words in why


@pytest.mark.parametrize(
    ("name", "module", "changes", "words"),
    [
        ("flash2", "flash_attn", {}, None),
        ("flash2", "flash_attn", {"dropout": True, "softcap": None}, None),
        ("flash2", "flash_attn", {"dropout": True, "softcap": 2.0}, "no dropout under a softcap"),
        ("flash2", "flash_attn", {"overflows": True, "backward": True}, "past int32"),
        ("flash2", "flash_attn", {"overflows": True, "backward": False}, None),
        ("flash2", "flash_attn", {"dtype": "float32"}, "takes 16 bits"),
        ("flash2", "flash_attn", {"capability": 75}, "Ampere"),
        ("flash2", "flash_attn", {"value_dim": 4}, "as wide as keys"),
        ("flash2", "flash_attn", {"sinks": True}, "knows no attention sinks"),
        ("flash3", "flash_attn_interface", {"sinks": True}, "knows no attention sinks"),
        ("flash4", "flash_attn.cute", {"sinks": True}, "knows no attention sinks"),
        ("flash3", "flash_attn_interface", {}, None),
        ("flash3", "flash_attn_interface", {"capability": 100}, "Hopper"),
        ("flash4", "flash_attn.cute", {"head_dim": 256, "value_dim": 256}, "at most 128"),
        ("flash4", "flash_attn.cute", {"dropout": True}, "has no dropout"),
    ],
)
def test_refusals_of_flash_attention_where_it_is_installed(
    name: str, module: str, changes: Mapping[str, Any], words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Callable[..., Any] | str] = {module: print}
    monkeypatch.setattr("runner.kernels.attention.flash._function", lambda asked: found[asked])
    why = BACKENDS[name].refusal(gpu(**changes))
    assert why is None if words is None else words in str(why)


@pytest.mark.parametrize(("name", "module"), [("flash2", "flash_attn"), ("flash4", "flash_attn.cute")])
@pytest.mark.parametrize(
    ("causal", "window", "sides"),
    [(True, None, (-1, 0)), (True, 4, (3, 0)), (False, 4, (3, 3)), (False, None, (-1, -1))],
)
def test_what_flash_attention_is_given(
    causal: bool, window: int | None, sides: tuple[int, int], name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = inputs(plan((5, 7), causal=causal, window=window), softcap=3.0)

    def function(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> tuple[Tensor, None]:
        open_side = -1 if name == "flash2" else None
        assert options.pop("window_size") == tuple(open_side if side == -1 else side for side in sides)
        assert options.pop("dropout_p", 0.0) == 0.0
        assert options.pop("cu_seqlens_q").tolist() == options.pop("cu_seqlens_k").tolist() == [0, 5, 12]
        assert options == {
            "max_seqlen_q": 7,
            "max_seqlen_k": 7,
            "softmax_scale": 8**-0.5,
            "causal": causal,
            "softcap": 3.0,
        }
        assert (q.shape, k.shape, v.shape) == ((12, 4, 8), (12, 2, 8), (12, 2, 8))
        return q * 2, None

    monkeypatch.setattr("runner.kernels.attention.flash._function", lambda _: function)
    torch.testing.assert_close(BACKENDS[name].run(given), given.query.transpose(1, 2) * 2)


@pytest.mark.parametrize(("heads", "head_dim"), [(16, 128), (32, 128), (8, 256), (12, 72)])
@pytest.mark.parametrize("tokens", [4096, 131072])
def test_the_packer_and_flash_attention_agree_on_the_most_documents(tokens: int, heads: int, head_dim: int) -> None:
    most = max_documents({"heads": heads, "head_dim": head_dim}, tokens)
    assert most > 0
    assert not overflows(tokens, most, heads=heads, head_dim=head_dim)
    assert overflows(tokens, most + 1, heads=heads, head_dim=head_dim)


def test_pages_are_read_whatever_the_keys_are() -> None:
    keys = torch.randn(2, 2, 6, 8)
    pages = Pages(
        k_pages=keys.transpose(1, 2).reshape(4, 3, 2, 8),
        v_pages=keys.transpose(1, 2).reshape(4, 3, 2, 8),
        block_table=torch.tensor([[0, 1], [2, 3]]),
        lengths=torch.tensor([6, 4]),
    )
    made = unmasked(batch=2, queries=1, keys=1, causal=True, window=None, device=CPU)
    query, newest = torch.randn(2, 4, 1, 8), torch.zeros(2, 2, 1, 8)
    session = Session()
    sinks = torch.randn(4)
    given = Inputs(query=query, key=newest, value=newest, plan=made, scale=8**-0.5, pages=pages, sinks=sinks)
    out = session.run(given)
    assert [one.backend for one in session.ledger] == ["paged"]
    for row, length in enumerate((6, 4)):
        one = keys[row : row + 1, :, :length]
        whole = unmasked(batch=1, queries=1, keys=length, causal=True, window=None, device=CPU)
        alone = Inputs(query=query[row : row + 1], key=one, value=one, plan=whole, scale=8**-0.5, sinks=sinks)
        torch.testing.assert_close(out[row : row + 1], truth(alone).float(), atol=1e-6, rtol=1e-5)


def test_a_choice_is_measured_on_copies_and_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, with this CPU's clock: every backend that can is called both ways."""

    def clock(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)

    table = calibration.Table({"device": "here"}, clock=clock)
    monkeypatch.setattr(
        dispatch.calibration, "choose", lambda *asked, device: table.choose(*asked) if device == CPU else None
    )
    session = Session()
    given = inputs(plan((5, 1, 6), causal=True, window=None), sinks=torch.randn(4, requires_grad=True))
    out = session.run(given)
    (entry,) = session.ledger
    assert set(entry.milliseconds) == set(HERE)
    assert entry.why == "measured"
    assert entry.backend in HERE
    assert all(x.grad is None for x in given.differentiable.values())
    torch.testing.assert_close(out.double(), truth(given), atol=1e-6, rtol=1e-5)
    session.run(given)
    assert len(session.ledger) == 1


def test_documents_one_by_one_where_they_pay() -> None:
    def taken(lengths: tuple[int, ...], **options: Any) -> str:
        session = Session()
        session.run(inputs(plan(lengths, causal=True, window=None), **options))
        return session.ledger[0].backend

    assert taken((64,) * 8) == "sdpa_documents"
    assert taken((64,) * 8, softcap=2.0) == "plain_documents"
    assert taken((2,) * 8) == "sdpa"
    assert taken((2,) * 8, softcap=2.0) == "plain"
    assert taken((2,) * 8, sinks=torch.randn(4)) == "plain"


def test_sinks_under_a_mask_are_plain_while_there_are_few_scores() -> None:
    def taken(queries: int, keys: int, masked: bool = True) -> str:
        session = Session()
        mask = torch.ones(1, 1, queries, keys, dtype=torch.bool)
        free = unmasked(batch=1, queries=queries, keys=keys, causal=True, window=None, device=CPU)
        made = given_mask(mask, batch=1, queries=queries, keys=keys) if masked else free
        session.run(inputs(made, sinks=torch.randn(4)))
        return session.ledger[0].backend

    assert taken(16, 16, masked=False) == "sdpa"
    assert [taken(128, 128), taken(129, 128), taken(1, 1 << 15)] == ["plain", "sdpa", "plain"]


def test_nothing_can() -> None:
    made = unmasked(batch=1, queries=2, keys=2, causal=True, window=None, device=CPU)
    x = torch.randn(1, 2, 2, 8)
    pages = Pages(k_pages=x, v_pages=x, block_table=x, lengths=x)
    with pytest.raises(RuntimeError, match=r"no attention for float32 cpu.*paged: decodes one query a row; varlen: "):
        Session().run(Inputs(query=x, key=x, value=x, plan=made, scale=1.0, pages=pages))


def test_large_score_matrices_are_not_even_tried_on_a_gpu_where_others_can() -> None:
    made = inputs(plan((8, 4), causal=True, window=None))
    call = replace(call_of(made), device="cuda", capability=90, queries=2**14, keys=2**14, heads=32)
    assert set(dispatch._heavy({}, call)) == {"plain", "sdpa_math"}
    assert "32 GiB" in dispatch._heavy({}, call)["plain"]
    assert not dispatch._heavy(dict.fromkeys(set(BACKENDS) - {"plain"}, "cannot"), call)
    assert not dispatch._heavy({}, replace(call, device="cpu"))
    assert not dispatch._heavy({}, replace(call, queries=64, keys=64))


def test_calibration_inside_a_checkpoint_leaves_its_tensors_alone() -> None:
    """What a candidate saves for its backward pass is not the checkpointed layer's."""
    made = inputs(plan((8, 4), causal=True, window=None))

    def layer(query: Tensor) -> Tensor:
        given = Inputs(**{**made.__dict__, "query": query})
        dispatch._timed(BACKENDS["plain"], given)()
        return BACKENDS["plain"].run(given)

    usual = torch.autograd.grad(BACKENDS["plain"].run(made).sum(), made.query)[0]
    out = checkpoint(layer, made.query, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(out.sum(), made.query)[0], usual)
