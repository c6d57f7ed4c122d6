"""What patches refuse, and that nothing is half done."""

from __future__ import annotations

import copy
import inspect
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import peft
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from runner.kernels import patching
from runner.kernels.ledger import Line
from runner.kernels.patching import PatchError, apply, patched
from runner.kernels.places import Forward
from runner.kernels.tiled_mlp import tiled
from tests.kernels.patches.training import batch, loss_of, model, must_agree, step, twins

PLAIN = {"rms_norm": "required", "swiglu": "required"}
CPU_WORDS = "no GPU: torch's own is as fast"


def tokens() -> dict[str, Tensor]:
    ids = torch.arange(12)[None] + 3
    return {"input_ids": ids, "labels": ids}


def replaced(made: nn.Module) -> list[str]:
    return [path for path, part in made.named_modules() if "forward" in part.__dict__]


def refused(made: Any, wanted: dict[str, Any], text: str, **options: Any) -> None:
    """The error says it, and nothing is in the model."""
    before = [dict(part.__dict__) for part in made.modules()]
    with pytest.raises(PatchError, match=text):
        apply(made, wanted, **options)
    assert [list(part.__dict__) for part in made.modules()] == [list(one) for one in before]


def test_unknown_names_and_words() -> None:
    refused(model("llama"), {"rms_nrom": "required"}, r"Unknown patches \['rms_nrom'\]. Patches: attention, ")
    refused(model("llama"), {"rms_norm": "yes"}, "'required', 'preferred' or 'off', got {'rms_norm': 'yes'}")


def test_on_a_cpu_what_needs_a_gpu_is_skipped_or_refused() -> None:
    made = model("llama")
    wanted = {"rms_norm": "preferred", "linear_cross_entropy": "preferred", "rope": "off"}
    ledger = apply(made, wanted).ledger
    assert [(line.what, line.applied, line.why) for line in ledger.lines] == [
        ("rms_norm", False, CPU_WORDS),
        ("linear_cross_entropy", True, "as wanted"),
        ("rope", False, "off"),
    ]
    refused(model("llama"), {"linear_cross_entropy": "required", "rms_norm": "required"}, f"rms_norm .*{CPU_WORDS}")


def test_no_place_at_all() -> None:
    made = model("llama")
    refused(made, {"geglu": "required"}, "geglu is required for LlamaForCausalLM .* no place for it", with_triton=False)
    refused(nn.Linear(2, 2), PLAIN, "no family is known for Linear", with_triton=False)
    (line,) = apply(made, {"geglu": "preferred"}, with_triton=False).ledger.lines
    assert (line.applied, line.why) == (False, "the model has no place for it")
    assert not replaced(made)
    (line,) = apply(nn.Linear(2, 2), {"rms_norm": "preferred"}).ledger.lines
    assert line.why == "no family is known for Linear"


def test_clashes_and_patching_twice() -> None:
    made = model("qwen3")
    both = {"rope": "required", "qk_norm_rope": "required"}
    refused(made, both, "'model.layers.0.self_attn' and do the same: set one of them off", with_triton=False)
    applied = apply(made, PLAIN, with_triton=False)
    with pytest.raises(PatchError, match="swiglu is in it already"):
        apply(made, {"swiglu": "required"}, with_triton=False)
    assert len(replaced(made)) == len(applied.found["rms_norm"].edits) + len(applied.found["swiglu"].edits)


def test_a_forward_that_others_have_replaced() -> None:
    made = model("llama")
    made.model.layers[1].mlp.forward = lambda x: x
    refused_by = r"'model.layers.1.mlp' cannot take it: its forward has been replaced already, by .*<lambda>"
    with pytest.raises(PatchError, match=refused_by):
        apply(made, PLAIN, with_triton=False)
    assert replaced(made) == ["model.layers.1.mlp"]
    lines = apply(made, dict.fromkeys(PLAIN, "preferred"), with_triton=False).ledger.of("swiglu")
    assert [(line.applied, line.places) for line in lines] == [
        (True, ("model.layers.0.mlp",)),
        (False, ("model.layers.1.mlp",)),
    ]


def test_one_that_is_replaced_later_is_left_and_said() -> None:
    made = model("llama")
    applied = apply(made, PLAIN, with_triton=False)
    made.model.norm.forward = made.model.norm.forward.__call__
    with pytest.raises(PatchError, match=r"over ours since, at 'model.norm': undo those"):
        applied.undo()
    assert replaced(made) == ["model.norm"]


def test_modules_that_compute_something_else() -> None:
    made = model("llama")
    made.model.layers[0].mlp.act_fn = nn.Tanh()
    refused(made, PLAIN, "its activation is Tanh, not silu", with_triton=False)
    made = model("gemma")
    made.model.norm.__class__ = type("GemmaRMSNorm", (nn.Module,), {"forward": lambda self, x: x * self.weight})
    refused(
        made,
        {"rms_norm": "required"},
        "'model.norm' cannot take it: its forward computes something else",
        with_triton=False,
    )


def test_heads_that_must_have_their_logits() -> None:
    wanted, name = {"linear_cross_entropy": "required"}, "llama"
    made = model(name)
    made.lm_head.register_forward_hook(lambda *_: None)
    refused(made, wanted, "its lm_head has hooks")
    made = model(name)
    made.loss_function = lambda **_: None
    refused(made, wanted, "its loss_function is <lambda>")
    made = model(name)
    made.lm_head = nn.Linear(32, 40)
    refused(made, wanted, "its lm_head has a bias")
    adapted = peft.get_peft_model(model(name), peft.LoraConfig(target_modules=["lm_head"]))
    refused(adapted, wanted, "its lm_head is a Linear: it takes a plain Linear, without an adapter")
    made = model(name)
    apply(made, wanted)
    made.loss_function = lambda **_: None
    with pytest.raises(RuntimeError, match=r"and now its loss_function is <lambda>.*undo the patch first"):
        loss_of(made, batch(name, 0))


def test_a_double_model_takes_no_triton() -> None:
    refused(model("llama").double(), PLAIN, "kernels take fp32, bf16 and fp16", with_triton=True)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_head_that_peft_trains_whole() -> None:
    pair = []
    for made in twins("llama"):
        torch.manual_seed(0)
        config = peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False)
        pair.append(peft.get_peft_model(made, config).train())
    with patched(pair[0], {"linear_cross_entropy": "required"}):
        must_agree(*pair, batch("llama", 1))


def test_what_a_training_forward_gives() -> None:
    ours, theirs = twins("granite")
    fields = batch("granite", 5)
    labels = fields.pop("labels")
    with patched(ours, {"linear_cross_entropy": "required"}):
        for more in (
            {"labels": labels, "num_items_in_batch": torch.tensor(7)},
            {"labels": labels.masked_fill(labels == -100, 3).masked_fill(labels == 5, -5), "ignore_index": -5},
            {"labels": labels, "shift_labels": labels.roll(-2, 1)},
            {"labels": labels[:, -4:], "logits_to_keep": 4},
        ):
            torch.testing.assert_close(ours(**fields, **more).loss, theirs(**fields, **more).loss)
        assert ours(**fields, labels=labels).logits is None
        (loss, *_rest) = ours(**fields, labels=labels, return_dict=False)
        assert loss.shape == ()
        assert torch.equal(ours(**fields).logits, theirs(**fields).logits)
        ours.eval(), theirs.eval()
        one, other = ours(**fields, labels=labels), theirs(**fields, labels=labels)
        assert torch.equal(one.logits, other.logits)
        assert torch.equal(one.loss, other.loss)


def test_undone_after_an_exception_and_in_any_order() -> None:
    made = model("llama")
    with pytest.raises(KeyError), patched(made, PLAIN, with_triton=False):
        raise KeyError
    assert not replaced(made)
    outputs = []
    for order in (PLAIN, dict(reversed(PLAIN.items()))):
        with patched(made, order, with_triton=False):
            outputs.append(loss_of(made, batch("llama", 1)))
    assert torch.equal(*outputs)


def test_nothing_is_half_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setitem(patching.BEGIN, "attention", lambda *_: fails)
    made = model("llama")
    with pytest.raises(MemoryError):
        apply(made, PLAIN | {"attention": "required"}, with_triton=False)
    assert not replaced(made)


def test_a_config_of_two_models() -> None:
    first = model("llama")
    second = type(first)(first.config)
    with patched(first, {"attention": "required"}):
        assert second.config._attn_implementation == "sdpa"
        assert {part.config._attn_implementation for part in second.modules() if hasattr(part, "config")} == {"sdpa"}


def test_copies_are_patched_with_their_own_weights_and_pickles_are_plain() -> None:
    made, fields = model("qwen3"), batch("qwen3", 1)
    names = ("rms_norm", "qk_norm_rope", "swiglu", "linear_cross_entropy")
    with patched(made, dict.fromkeys(names, "required"), with_triton=False):
        twin = copy.deepcopy(made)
        before = loss_of(made, fields)
        with torch.no_grad():
            for x in twin.parameters():
                x.zero_()
        assert torch.equal(loss_of(made, fields), before)
        assert not torch.equal(loss_of(twin, fields), before)
        assert replaced(twin) == replaced(made)
        assert all(part.forward.module is part for part in twin.modules() if isinstance(part.forward, Forward))
        held = io.BytesIO()
        torch.save(made, held)
    held.seek(0)
    loaded = torch.load(held, weights_only=False)
    assert not [part for part in loaded.modules() if isinstance(part.forward, Forward)]
    assert torch.equal(loss_of(loaded, fields), loss_of(made, fields))


def test_a_model_that_is_moved_stays_patched() -> None:
    ours, theirs = twins("qwen3")
    with patched(ours, PLAIN | {"qk_norm_rope": "required"}, with_triton=False):
        ours.double(), theirs.double()
        must_agree(ours, theirs, batch("qwen3", 1))


def test_norms_that_are_wider_than_their_input() -> None:
    """Llama's norm makes fp32 of bf16 where its weight is fp32; Gemma's does not."""
    for name, dtype in (("llama", torch.float32), ("gemma", torch.bfloat16)):
        made = model(name)
        x = torch.randn(3, 32).bfloat16()
        own = made.model.norm(x)
        with patched(made, {"rms_norm": "required"}, with_triton=False):
            assert made.model.norm(x).dtype == own.dtype == dtype


def test_checkpointed_layers() -> None:
    ours, theirs = twins("qwen3")
    ours.gradient_checkpointing_enable()
    with patched(ours, PLAIN | {"qk_norm_rope": "required"}, with_triton=False):
        must_agree(ours, theirs, batch("qwen3", 1))
        assert step(ours, batch("qwen3", 2))[0] > 0


def test_trainers_see_the_forward_that_they_know() -> None:
    ours, theirs = twins("llama")
    with patched(ours, PLAIN | {"linear_cross_entropy": "required"}, with_triton=False):
        assert inspect.signature(ours.forward) == inspect.signature(theirs.forward)
        assert inspect.signature(ours.model.norm.forward) == inspect.signature(theirs.model.norm.forward)


def test_under_autocast() -> None:
    ours, theirs = twins("qwen3")
    names = (*PLAIN, "qk_norm_rope", "linear_cross_entropy", "attention")
    fields = batch("qwen3", 1)
    with patched(ours, dict.fromkeys(names, "required"), with_triton=False):
        losses = []
        for made in (ours, theirs):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                losses.append(loss_of(made, fields))
            losses[-1].backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=2e-3)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert one.grad.dtype == other.grad.dtype
        assert (one.grad - other.grad).norm() <= 0.05 * other.grad.norm() + 1e-6


def test_a_line_in_short() -> None:
    line = Line(what="x", wanted="off", applied=False, why="y", places=("a.0.b", "a.11.b", "a.c1", ""))
    assert line.where == "a.*.b (2), a.c1 (1), the model (1)"
    assert set(line.fields()) == {"what", "where", "wanted", "applied", "why", "parity_error", "saving"}


@pytest.fixture
def _accelerate_anew() -> Iterator[None]:
    """Its state is the process's: what other tests have set, and what this one sets."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("_accelerate_anew")
def test_accelerate_may_lay_autocast_around_it() -> None:
    """Its Trainer keeps our forward under another name, and undoing takes both away."""
    made = model("llama").train()
    with patched(made, {"linear_cross_entropy": "required"}):
        Accelerator(cpu=True, mixed_precision="bf16").prepare(made)
        assert made(**tokens()).logits is None
    assert not replaced(made)
    assert made(**tokens()).logits is not None


def test_an_undo_that_others_keep_from_its_work_can_be_repeated() -> None:
    made = model("llama")
    applied = apply(made, {"swiglu": "required"}, with_triton=False)
    above = tiled({"mlp": made.model.layers[0].mlp})
    with pytest.raises(PatchError, match=r"at 'model.layers.0.mlp': undo those"):
        applied.undo()
    above.undo()
    applied.undo()
    assert not replaced(made)


def test_replicas_are_refused() -> None:
    made = model("llama")
    with patched(made, {"rms_norm": "required"}, with_triton=False), pytest.raises(PatchError, match="torchrun"):
        made._replicate_for_data_parallel()
    made._replicate_for_data_parallel()


def test_attention_is_put_in_once() -> None:
    made = model("llama")
    with patched(made, {"attention": "required"}):
        refused(made, {"attention": "required"}, "attention is in it already")
    assert made.config._attn_implementation == "sdpa"


def test_labels_of_other_tokens_than_the_head_is_given() -> None:
    made = model("llama").train()
    given = tokens()
    with patched(made, {"linear_cross_entropy": "required"}), pytest.raises(ValueError, match="logits_to_keep"):
        made(**given, logits_to_keep=2)


def test_two_threads_that_train_one_model() -> None:
    made = model("llama").train()
    batches = [tokens(), {name: x.flip(1) for name, x in tokens().items()}]
    with patched(made, {"linear_cross_entropy": "required"}):
        alone = [made(**batch).loss.item() for batch in batches]
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda batch: [made(**batch).loss.item() for _ in range(20)], batches))
    assert [set(one) for one in found] == [{loss} for loss in alone]
