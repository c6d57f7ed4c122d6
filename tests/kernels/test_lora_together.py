"""q, k and v of one attention in one go: PEFT's own numbers, one A-projection, and nothing kept when a forward ends."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import LlamaForCausalLM

from runner.kernels import lora
from runner.kernels.forwards.lora import Shared
from runner.kernels.patching import Applied, apply
from tests.kernels.test_lora import Alive, adapters, batch, gradients, layers, llama, near, pair

MODULES = ("q_proj", "k_proj", "v_proj")


def patched(**options: Any) -> tuple[Any, Any, Applied]:
    """A model with the patch, its twin with PEFT's own forwards."""
    ours = get_peft_model(llama(), adapters(**options))
    theirs = copy.deepcopy(ours)
    return ours, theirs, apply(ours, {"lora_linear": "required"})


def attention(model: Any, number: int = 0) -> Any:
    return model.get_base_model().model.layers[number].self_attn


def trios(model: nn.Module) -> list[Any]:
    found = [vars(layer)["forward"] for layer in layers(model)]
    return [one.trio for one in found if isinstance(one, Shared)]


@pytest.fixture(autouse=True)
def widths(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many layers each operation computes."""
    seen: list[int] = []

    def counted(x: Tensor, parts: list[Any], **options: Any) -> Any:
        seen.append(len(parts))
        return kernel(x, parts, **options)

    kernel = lora.lora_linears
    monkeypatch.setattr(lora, "lora_linears", counted)
    yield seen


def must_agree(ours: Any, theirs: Any, data: dict[str, Tensor]) -> None:
    losses = []
    for model in (ours, theirs):
        torch.manual_seed(1)
        model.zero_grad()
        losses.append(model(**data).loss)
        losses[-1].backward()
    assert near(losses[0], losses[1])
    mine, others = gradients(ours), gradients(theirs)
    assert mine.keys() == others.keys() != set()
    assert all(near(mine[name], others[name], 1e-4) for name in mine)


def test_three_are_one_operation_with_peft_s_gradients_and_the_ledger_names_them(widths: list[int]) -> None:
    ours, theirs, applied = patched()
    must_agree(ours, theirs, batch())
    assert widths == [3, 3]
    (line,) = applied.ledger.of("lora_linear")
    for number in (0, 1):
        assert {f"base_model.model.model.layers.{number}.self_attn.{name}" for name in MODULES} < set(line.places)
    applied.undo()
    must_agree(ours, theirs, batch())
    assert widths == [3, 3]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in ours.modules())


def test_quantised_bases_share_it_too(widths: list[int]) -> None:
    ours, theirs = pair()
    apply(ours, {"lora_linear": "required"})
    must_agree(ours, theirs, batch())
    assert widths == [3, 3]


OPTIONS: dict[str, dict[str, Any]] = {
    "dropout": {"lora_dropout": 0.3},
    "dora": {"use_dora": True},
    "two of three": {"target_modules": ["q_proj", "v_proj"]},
    "a bias of its own": {"lora_bias": True},
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", OPTIONS)
def test_what_cannot_share_goes_on_its_own(kind: str, widths: list[int]) -> None:
    ours = get_peft_model(llama(), adapters(**OPTIONS[kind]))
    theirs = copy.deepcopy(ours)
    apply(ours, {"lora_linear": "preferred"})
    must_agree(ours, theirs, batch())
    assert 3 not in widths
    if kind == "dropout":
        must_agree(ours.eval(), theirs.eval(), batch())
        assert widths == [3, 3]


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("outer", ["the layers", "the projections"])
def test_checkpoints_of_both_kinds(outer: str, reentrant: bool, widths: list[int]) -> None:
    ours, theirs, _ = patched()
    if outer == "the layers":
        ours.enable_input_require_grads()
        ours.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        must_agree(ours, theirs, batch())
        assert widths == [3, 3, 3, 3]
        return
    x = torch.randn(2, 5, 64, requires_grad=True)
    results = []
    for model in (ours, theirs):
        projections = [getattr(attention(model), name) for name in MODULES]

        def all_three(x: Tensor, projections: list[Any] = projections) -> Tensor:
            return torch.cat([one(x) for one in projections], -1)

        x.grad = None
        checkpoint(all_three, x, use_reentrant=reentrant).square().sum().backward()
        results.append([x.grad, *gradients(model).values()])
    assert all(near(one, other, 1e-4) for one, other in zip(*results, strict=True))
    assert widths == [], "outside of an attention nothing is computed ahead"


def test_no_more_is_held_after_forward_than_one_by_one() -> None:
    data = batch()
    held = []
    for joined in (True, False):
        ours, _, _ = patched()
        if not joined:
            for part in ours.modules():
                part._forward_pre_hooks.clear()
        with Alive() as alive:
            loss = ours(**data).loss
            held.append((alive.bytes, alive.peak))
        del loss
    assert held[0][0] <= held[1][0]
    assert held[0][1] <= held[1][1]


def test_nothing_is_kept_when_a_forward_ends_or_fails() -> None:
    ours, _, _ = patched()
    ours(**batch())
    assert all(trio.now.kept is None and not trio.now.running for trio in trios(ours))
    seen: list[weakref.ref[Tensor]] = []
    failing = attention(ours, 1)

    own = Shared.__call__  # no hook on k itself, or each would go on its own

    def call(shared: Any, *args: Any, **kwargs: Any) -> Any:
        if shared.module is failing.k_proj:
            kept = shared.trio.now.kept
            seen.extend(weakref.ref(x) for x in (kept.x, *kept.outputs.values()))
            raise MemoryError("between q and k")
        return own(shared, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shared, "__call__", call)
        with pytest.raises(MemoryError, match="between q and k"):
            ours(**batch())
    gc.collect()
    assert len(seen) == 3
    assert [one() for one in seen] == [None] * 3
    assert all(trio.now.kept is None and not trio.now.running for trio in trios(ours))
    ours(**batch()).loss.backward()


def in_place(_module: nn.Module, args: Any) -> None:
    args[0].add_(1)


def of_another(_module: nn.Module, args: Any) -> tuple[Tensor, ...]:
    return (args[0] * 2,)


@pytest.mark.parametrize("hook", [in_place, of_another])
@pytest.mark.parametrize("name", MODULES)
def test_hooks_see_and_change_what_they_ever_did(name: str, hook: Any, widths: list[int]) -> None:
    ours, theirs, _ = patched()
    for model in (ours, theirs):
        getattr(attention(model), name).register_forward_pre_hook(hook)
    data = batch()
    with torch.no_grad():
        assert near(ours(**data).logits, theirs(**data).logits)
    assert widths == [3], "the other layer's"


@pytest.mark.parametrize("hook", [in_place, of_another])
def test_hooks_of_all_modules_change_what_they_ever_did(hook: Any) -> None:
    ours, theirs, _ = patched()
    data = batch()

    def only_k(module: nn.Module, args: Any) -> Any:
        return hook(module, args) if module in {attention(ours).k_proj, attention(theirs).k_proj} else None

    handle = nn.modules.module.register_module_forward_pre_hook(only_k)
    try:
        with torch.no_grad():
            assert near(ours(**data).logits, theirs(**data).logits)
    finally:
        handle.remove()


def test_hooks_on_gradients_are_called() -> None:
    ours, theirs, _ = patched()
    seen: dict[str, list[Tensor]] = {"ours": [], "theirs": []}
    data = batch()
    for side, model in (("ours", ours), ("theirs", theirs)):
        for module in (attention(model, 1).k_proj, model.get_base_model().model.layers[1].mlp.gate_proj):
            module.register_full_backward_hook(lambda _m, dx, dy, side=side: seen[side].extend([*dx, *dy]))
        model(**data).loss.backward()
    assert len(seen["ours"]) == len(seen["theirs"]) == 4
    assert all(near(one, other, 1e-4) for one, other in zip(seen["ours"], seen["theirs"], strict=True))


def test_switches_in_between_are_honoured(widths: list[int]) -> None:
    ours, theirs, _ = patched()
    data = {"input_ids": batch()["input_ids"]}
    for model in (ours, theirs):
        torch.manual_seed(5)
        model.add_adapter("other", adapters(r=3))
    changes: tuple[Callable[[Any], Any], ...] = (
        lambda model: model.eval(),
        lambda model: model.set_adapter("other"),
        lambda model: model.base_model.set_adapter(["default", "other"]),
        lambda model: model.set_adapter("default"),
        lambda model: model.merge_adapter(),
        lambda model: model.unmerge_adapter(),
    )
    for change in changes:
        change(ours), change(theirs)
        assert near(ours(**data).logits, theirs(**data).logits, 1e-4)
    assert widths == [3] * 8
    with ours.disable_adapter(), theirs.disable_adapter():
        assert near(ours(**data).logits, theirs(**data).logits)
    with torch.inference_mode():
        assert near(ours(**data).logits, theirs(**data).logits)
    mixed = [model(**data, adapter_names=["other", "default"]).logits for model in (ours, theirs)]
    assert near(*mixed)


def test_a_gradient_is_not_handed_on_to_where_none_is_wanted() -> None:
    ours, theirs, _ = patched()
    x = torch.randn(2, 5, 64)
    for grad, autocast in ((False, False), (True, True)):
        trio = vars(attention(ours).q_proj)["forward"].trio
        trio.start()
        attention(ours).q_proj(x)
        with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found, expected = attention(ours).k_proj(x), attention(theirs).k_proj(x)
        trio.end()
        assert (found.requires_grad, found.dtype) == (expected.requires_grad, expected.dtype)


def test_autocast_is_as_near_to_the_truth_as_peft(widths: list[int]) -> None:
    ours, theirs, _ = patched()
    truth = copy.deepcopy(theirs).double()
    data = batch()
    with torch.no_grad():
        exact = truth(**data).logits
        with torch.autocast("cpu", torch.bfloat16):
            errors = [(model(**data).logits - exact).norm() for model in (ours, theirs)]
    assert errors[0] < 2 * errors[1]
    assert widths == [3, 3]


def test_a_copy_shares_with_itself(widths: list[int]) -> None:
    ours, theirs, applied = patched()
    twin = copy.deepcopy(ours)
    assert not {id(layer) for trio in trios(twin) for layer in trio.layers} & {id(layer) for layer in layers(ours)}
    assert all(layer in set(layers(twin)) for trio in trios(twin) for layer in trio.layers)
    with torch.no_grad():
        for model in (ours, theirs):
            for name, x in model.named_parameters():
                x.mul_(1.5 if "lora_B" in name else 1)
    applied.undo()
    _, unchanged, _ = patched()
    must_agree(twin, unchanged, batch())
    assert widths == [3, 3]


def test_threads_do_not_take_each_other_s() -> None:
    ours, theirs, _ = patched()
    given = [batch() for _ in range(4)]
    found: dict[int, Tensor] = {}

    def run(number: int) -> None:
        for _ in range(5):
            with torch.no_grad():
                found[number] = ours(**given[number]).logits

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(given))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with torch.no_grad():
        assert all(near(found[number], theirs(**data).logits) for number, data in enumerate(given))


def test_a_layer_whose_forward_is_another_s_leaves_the_others_alone(widths: list[int]) -> None:
    model = get_peft_model(llama(), adapters())
    layer = attention(model).k_proj
    layer.forward = layer.forward
    apply(model, {"lora_linear": "preferred"})
    assert len(trios(model)) == 3
    model(**batch())
    assert widths == [3]
    assert isinstance(model.get_base_model(), LlamaForCausalLM)
