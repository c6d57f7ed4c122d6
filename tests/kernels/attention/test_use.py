"""One model attends by our function: no other does, nothing leaks between documents, and all comes back."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor

from runner.kernels.attention import BACKENDS, choices, register, use_attention
from tests.kernels.attention.models import LENGTH, both, inputs, model, outputs
from tests.registry import tiny_llm

LENGTHS = (4, 1, 8)


def named(lengths: tuple[int, ...] = LENGTHS) -> dict[str, Any]:
    """What a data collator without padding hands over."""
    edges = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    longest = max(lengths)
    return {"cu_seq_lens_q": edges, "cu_seq_lens_k": edges, "max_length_q": longest, "max_length_k": longest}


@pytest.mark.parametrize("backend", [None, "plain", "plain_documents", "sdpa", "sdpa_documents"])
@pytest.mark.parametrize("told", ["positions", "lengths"])
def test_no_document_depends_on_another(told: str, backend: str | None) -> None:
    made = model("mistral")
    use_attention(made, force=backend)
    embedded = torch.randn(1, LENGTH, 32, requires_grad=True)
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None]
    given = {"inputs_embeds": embedded, "position_ids": positions}
    given |= named() if told == "lengths" else {"use_cache": False}
    out = outputs(made, given)[0].split(LENGTHS)
    for number, part in enumerate(out):
        (gradient,) = torch.autograd.grad(part.sum(), embedded, retain_graph=True)
        for other, found in enumerate(gradient[0].split(LENGTHS)):
            assert bool(found.any()) == (other == number)


@pytest.mark.parametrize("name", ["llama", "gemma2", "bert", "modernbert"])
def test_lengths_of_a_collator_cut_a_row(name: str) -> None:
    """Encoders are told of packed rows in no other way; positions count from 0 again in each document."""
    made = model(name)
    ids = torch.randint(3, 40, (1, LENGTH))
    alone = [outputs(made, {"input_ids": part}) for part in ids.split(LENGTHS, 1)]
    use_attention(made)
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None]
    packed = outputs(made, {"input_ids": ids, "position_ids": positions} | named())
    torch.testing.assert_close(packed, torch.cat(alone, 1), atol=2e-5, rtol=2e-4)
    assert all("3 documents" in one.call or "4 documents" in one.call for one in choices(made))


def test_a_model_from_the_same_config_object_is_untouched() -> None:
    torch.manual_seed(0)
    config = tiny_llm.config("gemma2")
    one, other = (transformers.Gemma2ForCausalLM(config).eval() for _ in range(2))
    given, _ = inputs("gemma2", "left")
    before = config.to_json_string(), config._attn_implementation, outputs(other, given)
    first = outputs(one, given)
    undo = use_attention(one)
    assert other.config._attn_implementation == config._attn_implementation == before[1] != "runner"
    assert {module.config._attn_implementation for module in one.modules() if hasattr(module, "config")} == {"runner"}
    assert torch.equal(outputs(other, given), before[2])
    outputs(one, given)
    assert (choices(one) != [], choices(other)) == (True, [])
    undo()
    assert config.to_json_string() == before[0]
    assert all(module.config is config for module in one.modules() if hasattr(module, "config"))
    assert torch.equal(outputs(one, given), first)


def test_the_name_is_not_saved(tmp_path: Path) -> None:
    made = model("llama")
    use_attention(made)
    made.save_pretrained(tmp_path)
    assert "runner" not in (tmp_path / "config.json").read_text()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "llama"


def test_a_tower_for_images_keeps_its_attention() -> None:
    made = model("gemma3-vision")
    use_attention(made)
    assert made.model.language_model.config._attn_implementation == "runner"
    assert made.config.text_config._attn_implementation == "runner"
    assert made.model.vision_tower.config._attn_implementation == "eager"
    assert made.config.vision_config._attn_implementation == "eager"


def test_a_copied_model_keeps_its_own_ledger() -> None:
    made = model("llama")
    use_attention(made, force="sdpa_math")
    twin = copy.deepcopy(made)
    given, _ = inputs("llama", "whole")
    outputs(twin, given)
    assert ([one.backend for one in choices(twin)], choices(made)) == (["sdpa_math"], [])


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_and_adapters_are_unharmed(reentrant: bool) -> None:
    given, counts = inputs("mistral", "packed")
    upstream = torch.randn(LENGTH, 40)

    def adapted() -> Any:
        made = model("mistral").train()
        torch.manual_seed(1)
        lora = get_peft_model(made, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
        lora.enable_input_require_grads()
        return lora

    truth = both(adapted(), given, counts, upstream)
    made = adapted()
    made.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    use_attention(made)
    found = both(made, given, counts, upstream)
    assert truth.keys() == found.keys()
    for name, value in truth.items():
        torch.testing.assert_close(found[name], value, atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_mask_of_the_callers_own_is_taken_as_it_is(kind: str) -> None:
    made = model("llama")
    ids = torch.randint(3, 40, (2, LENGTH))
    seen = torch.rand(2, 1, LENGTH, LENGTH) < 0.5
    seen |= torch.eye(LENGTH, dtype=torch.bool)
    added = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    truth = outputs(made, {"input_ids": ids, "attention_mask": added})
    use_attention(made)
    found = outputs(made, {"input_ids": ids, "attention_mask": seen if kind == "bool" else added})
    torch.testing.assert_close(found, truth, atol=2e-5, rtol=2e-4)
    assert choices(made)[0].refused["plain_documents"] == "needs documents, there is a mask of the caller's own"


@pytest.mark.parametrize("backend", ["sdpa", "sdpa_documents", "plain", "plain_documents"])
def test_dropout_is_honoured(backend: str) -> None:
    made = model("llama").train()
    for layer in made.model.layers:
        layer.self_attn.attention_dropout = 0.5
    use_attention(made, force=backend)
    given, _ = inputs("llama", "packed")
    one, other = outputs(made, given), outputs(made, given)
    assert not torch.equal(one, other)
    made.eval()
    assert torch.equal(outputs(made, given), outputs(made, given))
    assert ["dropout" in entry.call for entry in choices(made)] == [True, False]
    assert choices(made)[0].refused["varlen"].startswith("Triton kernels do not run on cpu")


def test_the_ledger_has_one_line_a_shape_and_says_why_not() -> None:
    made = model("llama")
    use_attention(made)
    for kind in ("whole", "packed", "whole", "packed"):
        outputs(made, inputs("llama", kind)[0])
    lines = choices(made)
    assert len(lines) == 2
    assert "2 x 16 to 16, heads 4/2 of 8, causal, mask: free" in lines[0].call
    assert "mask: 4 documents to 8" in lines[1].call
    assert lines[0].why == "the written rule: nothing is measured on cpu"
    assert lines[0].refused["flash2"] == "flash_attn is not installed"
    assert lines[0].refused["sdpa_cudnn"] == "is a kernel for GPUs, this is cpu"
    assert lines[0].refused["paged"] == "there are no pages"


def test_a_layer_in_training_is_chosen_for_with_its_backward_pass() -> None:
    """Or a reentrant checkpoint would compute its outputs in one way and their gradients in another."""
    made = model("llama").train()
    use_attention(made)
    with torch.no_grad():
        outputs(made, inputs("llama", "whole")[0])
        outputs(made.eval(), inputs("llama", "whole")[0])
    assert ["with backward" in line.call for line in choices(made)] == [True, False]


def test_what_is_forced_and_cannot_be_had_raises_with_the_reason() -> None:
    made = model("gemma2")
    given, _ = inputs("gemma2", "whole")
    use_attention(made, force="sdpa")
    with pytest.raises(RuntimeError, match=r"'sdpa' was asked for and cannot be had: has no softcap .*softcap 50"):
        outputs(made, given)
    with pytest.raises(ValueError, match=r"'flash' is unknown; there are paged, varlen"):
        use_attention(made, force="flash")


def test_the_bare_name_is_no_way_in() -> None:
    register()
    register()
    made = model("llama")
    made.set_attn_implementation("runner")
    with pytest.raises(RuntimeError, match="use_attention"):
        outputs(made, inputs("llama", "whole")[0])


def test_what_is_no_model_of_transformers_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has no config"):
        use_attention(torch.nn.Linear(2, 2))


def test_wide_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="heads of 320; our kernels hold heads of at most 256"):
        use_attention(tiny_llm.model("qwen3", head_dim=320))


def test_wide_latent_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="heads of 264; our kernels"):
        use_attention(tiny_llm.model("deepseek-v3", qk_nope_head_dim=256))


def test_options_that_no_backend_knows_are_refused() -> None:
    made = model("llama")
    use_attention(made)
    layer = made.model.layers[0].self_attn
    x: Tensor = torch.randn(1, 2, 3, 8)
    function = transformers.AttentionInterface._global_mapping["runner"]
    for option in ("position_bias", "cache"):
        with pytest.raises(ValueError, match=f"hands '{option}'"):
            function(layer, x, x, x, None, **{option: x})
    with pytest.raises(ValueError, match="cuts one packed row, there are 2"):
        outputs(made, inputs("llama", "whole")[0] | named())
    assert "varlen" in BACKENDS


def test_a_mask_for_other_sizes_is_refused() -> None:
    made = model("llama")
    use_attention(made)
    plan = made.model.layers[0].self_attn.config._attn_implementation.session.plan(
        batch_size=1, q_length=4, kv_length=4, config=made.config, device="cpu"
    )
    x = torch.randn(1, 4, 3, 8)
    with pytest.raises(ValueError, match=r"made for \(1, 1, 4, 4\) on cpu, attention has \(1, 1, 3, 3\)"):
        transformers.AttentionInterface._global_mapping["runner"](made.model.layers[0].self_attn, x, x, x, plan)
