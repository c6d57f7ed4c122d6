"""Plans read the masks of transformers aright, and cost one reading of the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, StaticCache
from transformers.masking_utils import (
    and_masks,
    create_bidirectional_mask,
    create_bidirectional_sliding_window_mask,
    create_causal_mask,
    create_chunked_causal_mask,
    create_sliding_window_causal_mask,
    or_masks,
)

from runner.kernels.attention.dispatch import Name, Session, register
from runner.kernels.attention.plan import Documents, Plan, Tokens, places

POSITIONS = torch.cat([torch.arange(n) for n in (3, 1, 5, 3)])[None]
LEFT = torch.tensor([[1] * 12, [0] * 5 + [1] * 7])
MASKS = [
    create_causal_mask,
    create_bidirectional_mask,
    create_sliding_window_causal_mask,
    create_bidirectional_sliding_window_mask,
    create_chunked_causal_mask,
]


def config(implementation: str | Name) -> Any:
    made = LlamaConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=2)
    made.sliding_window, made.attention_chunk_size = 4, 5
    made._attn_implementation_internal = implementation
    return made


def made_by(create: Any, *, rows: int = 1, session: Session | None = None, queries: int = 12, **given: Any) -> Any:
    """The plan and the mask of sdpa for the same arguments."""
    register()
    name = Name.of(session or Session())
    arguments = {
        "inputs_embeds": torch.zeros(rows, queries, 8),
        "attention_mask": None,
        "past_key_values": None,
    } | given
    return create(config(name), **arguments), create(config("sdpa"), **arguments)


@pytest.mark.parametrize("given", [{}, {"position_ids": POSITIONS}, {"attention_mask": LEFT, "rows": 2}], ids=str)
@pytest.mark.parametrize("create", MASKS, ids=lambda create: create.__name__)
def test_the_dense_mask_is_that_of_transformers(create: Any, given: dict[str, Any]) -> None:
    plan, mask = made_by(create, **given)
    assert isinstance(plan, Plan)
    if mask is not None:
        assert torch.equal(plan.dense, mask)
    assert plan.shape == plan.dense.shape


@pytest.mark.parametrize("given", [{}, {"position_ids": POSITIONS}, {"attention_mask": LEFT, "rows": 2}], ids=str)
@pytest.mark.parametrize("create", MASKS[:4], ids=lambda create: create.__name__)
def test_documents_say_what_the_mask_says_of_real_tokens(create: Any, given: dict[str, Any]) -> None:
    plan, _ = made_by(create, **given)
    assert isinstance(plan.layout, Documents)
    row, query, key = (torch.arange(size) for size in (plan.shape[0], plan.shape[2], plan.shape[3]))
    seen = places(plan)(row[:, None, None, None], query[:, None], query[:, None], key)
    real = given.get("attention_mask", torch.ones(1, 12)).bool()
    pairs = real[:, None, :, None] & real[:, None, None, :]
    assert torch.equal(seen & pairs, plan.dense & pairs)
    assert not (seen & (real[:, None, :, None] != real[:, None, None, :])).any()


def reason(create: Any, **given: Any) -> str:
    plan, _ = made_by(create, **given)
    assert isinstance(plan.layout, str)
    return plan.layout


def odd(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return k % 2 == 1


def test_what_documents_cannot_say_has_its_reason() -> None:
    assert reason(create_chunked_causal_mask) == "a mask with chunked_overlay"
    assert reason(create_causal_mask, or_mask_function=odd) == "a mask with or_masks.<locals>.or_mask"
    assert reason(create_causal_mask, and_mask_function=odd) == "a mask with odd"
    images = torch.full((1, 12), -1)
    assert "or_mask" in reason(create_causal_mask, block_sequence_ids=images)
    holes = torch.tensor([[1, 1, 0, 1] * 3])
    assert reason(create_causal_mask, attention_mask=holes) == "padding amid the tokens of a row"
    static = StaticCache(config=LlamaConfig(num_hidden_layers=1), max_cache_len=20)
    assert reason(create_causal_mask, past_key_values=static).startswith("keys that no query has reached")


def test_a_mask_of_another_kind_is_not_taken_for_causal() -> None:
    for function in (odd, and_masks(odd), or_masks(odd)):
        plan = Session().plan(
            batch_size=1, q_length=4, kv_length=4, mask_function=function, config=config("sdpa"), device="cpu"
        )
        assert isinstance(plan.layout, str)


def test_keys_of_a_cache() -> None:
    cache = DynamicCache()
    cache.update(torch.zeros(2, 2, 5, 4), torch.zeros(2, 2, 5, 4), 0)
    plan, _ = made_by(create_causal_mask, rows=2, queries=3, past_key_values=cache)
    assert (plan.layout.longest_query, plan.layout.longest_key, plan.free) == (3, 8, False)
    assert torch.equal(plan.dense[0, 0].sum(1), torch.tensor([6, 7, 8]))
    one, _ = made_by(create_causal_mask, rows=2, queries=1, past_key_values=cache)
    assert one.free
    padded = torch.ones(2, 6)
    assert made_by(create_causal_mask, rows=2, queries=1, past_key_values=cache, attention_mask=padded)[0].free
    padded[1, :2] = 0
    plan, _ = made_by(create_causal_mask, rows=2, queries=1, past_key_values=cache, attention_mask=padded)
    assert plan.layout == "padding before other keys"


def test_padding_of_another_models_keys_is_not_taken_for_ones_own() -> None:
    crossed = config(Name.of(Session()))
    crossed.add_cross_attention = True
    register()
    plan = create_bidirectional_mask(crossed, torch.zeros(2, 12, 8), LEFT)
    assert plan.layout == "padding that may be of another's keys"
    own = create_causal_mask(crossed, torch.zeros(2, 12, 8), LEFT.flip(1), None)
    assert own.layout.known[0] == [12, 7, 5]


def test_masks_of_one_pass_share_one_reading_and_the_next_pass_reads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    documents = Tokens.documents.func  # type: ignore[attr-defined]
    monkeypatch.setattr(Tokens, "documents", property(lambda self: read.append(self) or documents(self)))
    session = Session()
    for positions in (POSITIONS, POSITIONS.flip(1)):
        read.clear()
        plans = [
            made_by(create, session=session, position_ids=positions)[0]
            for create in (create_causal_mask, create_sliding_window_causal_mask)
        ]
        for plan in plans:
            assert isinstance(plan.layout, Documents)
            assert plan.layout is plan.layout
        assert read[0] is read[1]
        mine, theirs = plans[0].dense, made_by(create_causal_mask, position_ids=positions)[1]
        assert torch.equal(mine, theirs)


def test_a_plan_that_comes_back_is_taken_as_it_is() -> None:
    """Generation with a static cache makes masks before it calls the model."""
    plan, _ = made_by(create_causal_mask)
    again = create_causal_mask(config(Name.of(Session())), torch.zeros(1, 12, 8), plan, None)
    assert again is plan


def test_ways_to_name_documents_agree() -> None:
    plan, mask = made_by(create_causal_mask, position_ids=POSITIONS)
    whole, _ = made_by(create_causal_mask)
    edges = torch.tensor([0, 3, 4, 9, 12])
    cut = whole.cut(edges, edges, longest_query=5, longest_key=5)
    assert cut is whole.cut(edges, edges, longest_query=5, longest_key=5)
    assert torch.equal(cut.dense, mask)
    assert torch.equal(cut.layout.queries, plan.layout.queries)
    assert cut.layout.queries.dtype == torch.int32
    assert (plan.layout.count, plan.layout.longest_key, plan.layout.lengths[0]) == (4, 5, [3, 1, 5, 3])
