"""Packed rows are never mixed by a cache that nobody asked for, and one that is asked for is had."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from runner.kernels.attention import use_attention
from runner.kernels.patching import apply
from runner.kernels.probe import contamination
from tests.kernels.attention.models import model, outputs

LENGTHS = (4, 1, 8)
DECODERS = ["llama", "gemma2", "mistral", "qwen3", "gemma3-vision"]


def packed() -> dict[str, Any]:
    ids = torch.randint(3, 40, (1, sum(LENGTHS)))
    return {"input_ids": ids, "position_ids": torch.cat([torch.arange(n) for n in LENGTHS])[None]}


def seen(made: Any, given: dict[str, Any]) -> list[tuple[int, int]]:
    """Documents whose outputs depend on another's tokens, and the other."""
    embedded = made.get_input_embeddings()(given["input_ids"]).detach().requires_grad_()
    others = {name: x for name, x in given.items() if name != "input_ids"}
    found = []
    for number, part in enumerate(outputs(made, {"inputs_embeds": embedded} | others)[0].split(LENGTHS)):
        (gradient,) = torch.autograd.grad(part.sum(), embedded, retain_graph=True)
        found += [(number, other) for other, x in enumerate(gradient[0].split(LENGTHS)) if other != number and x.any()]
    return found


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [name for name in DECODERS if name != "gemma3-vision"])
def test_packed_rows_are_not_mixed_where_use_cache_is_not_given(name: str, training: bool) -> None:
    made = model(name).train(training)
    assert seen(made, packed()), "transformers keeps documents apart by itself"
    use_attention(made)
    assert seen(made, packed()) == []
    assert made(**packed()).past_key_values is None


def test_the_probe_of_a_patched_model_finds_no_contamination() -> None:
    made = model("llama").train()
    given = packed()
    apply(made, {"attention": "required", "linear_cross_entropy": "preferred"})
    contamination(made, given | {"labels": given["input_ids"]}, documents=3)


def test_evaluation_without_gradients_gives_what_each_document_gives_alone() -> None:
    made = model("llama")
    use_attention(made)
    given = packed()
    with torch.no_grad():
        alone = [outputs(made, {"input_ids": part}) for part in given["input_ids"].split(LENGTHS, 1)]
        torch.testing.assert_close(outputs(made, given), torch.cat(alone, 1), atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("name", DECODERS)
def test_training_makes_no_cache_and_reads_no_positions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = model(name).train()
    given = {"input_ids": torch.randint(3, 40, (2, 5))}
    if name == "gemma3-vision":
        given["token_type_ids"] = torch.zeros(2, 5, dtype=torch.int64)
    assert made(**given).past_key_values is not None
    use_attention(made)
    monkeypatch.setattr(Tensor, "nonzero", None)
    assert made(**given).past_key_values is None
    asked = made(**given, use_cache=True).past_key_values
    assert asked.get_seq_length() == 5


def test_a_cache_in_evaluation_is_there_as_ever() -> None:
    made = model("llama")
    use_attention(made)
    ids = torch.randint(3, 40, (2, 5))
    assert made(ids).past_key_values.get_seq_length() == 5
    assert made(ids, position_ids=torch.arange(5)[None]).past_key_values.get_seq_length() == 5
    made.config.use_cache = False
    assert made(ids).past_key_values is None


@pytest.mark.parametrize("training", [True, False])
def test_a_cache_that_is_asked_for_with_packed_rows_is_refused(training: bool) -> None:
    made = model("llama").train(training)
    use_attention(made)
    given = packed()
    with pytest.raises(
        ValueError, match=r"LlamaModel got use_cache=True and position_ids .* row 0 at token 4: .*=False"
    ):
        made(**given, use_cache=True)
    cache = made.eval()(given["input_ids"], use_cache=True).past_key_values
    with pytest.raises(ValueError, match="got past_key_values and position_ids that begin again"):
        made(**given, past_key_values=cache)
    with pytest.raises(ValueError, match="got use_cache=True"):
        made.model(given["input_ids"], None, given["position_ids"], use_cache=True)


def test_arguments_may_be_given_by_place() -> None:
    made = model("llama").train()
    use_attention(made)
    given = packed()
    found = made.model(given["input_ids"], None, given["position_ids"])
    assert found.past_key_values is None
    assert torch.equal(found[0], made.model(**given, use_cache=False)[0])


def test_padding_to_the_left_with_positions_is_no_packing() -> None:
    """What generation gives: positions of padding are all the same."""
    made = model("llama")
    use_attention(made)
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
    given = {"input_ids": torch.randint(3, 40, (2, 4)), "attention_mask": mask, "position_ids": positions}
    assert made(**given, use_cache=True).past_key_values.get_seq_length() == 4


@pytest.mark.parametrize("training", [True, False])
def test_generation_uses_its_cache(training: bool) -> None:
    made = model("llama")
    ids = torch.randint(3, 40, (2, 4))
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    expected = made.generate(ids, **options)
    made.train(training)
    undo = use_attention(made)
    widths: list[int] = []
    made.model.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    assert torch.equal(made.generate(ids, **options), expected)
    assert widths == [4, 1, 1, 1, 1]
    undo()


def test_undo_leaves_no_hook_and_a_copy_heeds_like_its_model() -> None:
    made = model("gemma2").train()
    undo = use_attention(made)
    twin = copy.deepcopy(made)
    undo()
    assert not any(
        getattr(part, name)
        for part in made.modules()
        for name in vars(part)
        if name.startswith("_forward") and "hooks" in name
    )
    assert made(**packed()).past_key_values is not None
    assert seen(twin, packed()) == []


@pytest.mark.parametrize("reentrant", [False, True])
def test_adapters_and_checkpointing_are_unharmed(reentrant: bool) -> None:
    made = get_peft_model(model("llama").train(), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    made.enable_input_require_grads()
    made.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    use_attention(made)
    given = packed()
    made(**given, labels=given["input_ids"]).loss.backward()
    gradients = {name: x.grad for name, x in made.named_parameters() if x.grad is not None}
    made.gradient_checkpointing_disable()
    made.zero_grad()
    made(**given, labels=given["input_ids"], use_cache=False).loss.backward()
    assert gradients
    assert all(torch.allclose(made.get_parameter(name).grad, x, atol=1e-6) for name, x in gradients.items())
