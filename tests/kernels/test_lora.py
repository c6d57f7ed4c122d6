"""LoRA through PEFT: the same numbers as PEFT's own on dequantised weights, its switches unchanged, less memory."""

from __future__ import annotations

import copy
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from runner.kernels.lora import LoraLinear, forward, refusal, registered, together
from runner.kernels.quantised import QuantisedLinear, quantise_linears

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def llama(layers: int = 2, width: int = 64) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=50, **sizes, **heads, attention_bias=True, max_position_embeddings=64)
    return LlamaForCausalLM(config)


def adapters(**options: Any) -> LoraConfig:
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "init_lora_weights": False} | options)


def pair(
    form: str = "nf4", *, dtype: torch.dtype = torch.float32, width: int = 64, **options: Any
) -> tuple[PeftModel, PeftModel]:
    """Ours on quantised weights, and PEFT's own on the same weights dequantised, with the same adapters."""
    quantised = llama(width=width).to(dtype)
    quantise_linears(quantised, form)
    plain = copy.deepcopy(quantised)
    for name, module in list(plain.named_modules()):
        if isinstance(module, QuantisedLinear):
            linear = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, dtype=dtype)
            linear.weight.data = module.weight.dequantise()
            linear.bias = copy.deepcopy(module.bias)
            plain.set_submodule(name, linear)
    ours = get_peft_model(quantised, registered(adapters(**options)))
    theirs = get_peft_model(plain, adapters(**options))
    for key, value in ours.state_dict().items():
        if "lora_" in key:
            theirs.get_parameter(key).data = value.clone()
    return ours, theirs


def batch() -> dict[str, Tensor]:
    ids = torch.randint(0, 50, (2, 12))
    return {"input_ids": ids, "labels": ids}


def layers(model: nn.Module) -> list[Linear]:
    return [module for module in model.modules() if isinstance(module, Linear)]


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def near(ours: Tensor, theirs: Tensor, eps: float = 1e-5) -> bool:
    return bool((ours - theirs).abs().max() <= eps * theirs.abs().max())


@pytest.fixture
def data() -> dict[str, Tensor]:
    return batch()


KINDS = {
    "plain": {},
    "dora": {"use_dora": True},
    "dropout": {"lora_dropout": 0.3},
    "dora with dropout": {"use_dora": True, "lora_dropout": 0.3},
    "rslora of some layers": {"use_rslora": True, "target_modules": ["q_proj", "down_proj"]},
    "trained biases": {"bias": "all"},
    "a bias of its own": {"lora_bias": True, "target_modules": ["q_proj", "v_proj"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_through_peft_are_its_own_on_dequantised_weights(kind: str, data: dict[str, Tensor]) -> None:
    ours, theirs = pair(**KINDS[kind])
    assert all(isinstance(layer, LoraLinear) for layer in layers(ours))
    losses = []
    for model in (ours, theirs):
        torch.manual_seed(1)
        losses.append(model(**data).loss)
        losses[-1].backward()
    assert near(losses[0], losses[1])
    mine, others = gradients(ours), gradients(theirs)
    assert mine.keys() == others.keys()
    assert any("lora_A" in name for name in mine)
    assert all(near(mine[name], others[name], 1e-4) for name in mine)


@pytest.mark.parametrize("form", ["int4", "int8", "fp8", "fp8_block"])
def test_every_format_gives_the_gradients_of_its_dequantised_weights(form: str, data: dict[str, Tensor]) -> None:
    ours, theirs = pair(form)
    for model in (ours, theirs):
        model(**data).loss.backward()
    others = gradients(theirs)
    assert all(near(gradient, others[name], 1e-4) for name, gradient in gradients(ours).items())


def test_bfloat16_with_adapters_in_fp32_is_as_near_to_the_truth_as_peft(data: dict[str, Tensor]) -> None:
    """The criterion of the kernels: under twice PEFT's own error against the same model in fp64."""
    ours, theirs = pair(dtype=torch.bfloat16)
    truth = copy.deepcopy(theirs).double()
    assert layers(ours)[0].lora_A["default"].weight.dtype == torch.float32
    for model in (ours, theirs, truth):
        model(**data).loss.backward()
    exact = gradients(truth)
    errors = [
        sum(float((gradient - exact[name]).norm() / exact[name].norm()) for name, gradient in gradients(model).items())
        for model in (ours, theirs)
    ]
    assert errors[0] < 2 * errors[1]


def test_twenty_steps_are_the_same() -> None:
    ours, theirs = pair(lora_dropout=0.1)
    batches = [batch(), batch()] * 10
    losses = []
    for model in (ours, theirs):
        torch.manual_seed(2)
        optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
        for data in batches:
            optimiser.zero_grad()
            loss = model(**data).loss
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert losses[:20] == pytest.approx(losses[20:], rel=1e-4)
    assert losses[0] != pytest.approx(losses[19], rel=1e-2), "nothing was trained"


def test_layers_of_peft_with_plain_bases_take_the_same_forward(data: dict[str, Tensor]) -> None:
    _, theirs = pair(use_dora=True)
    theirs(**data).loss.backward()
    expected = gradients(theirs)
    theirs.zero_grad()
    for layer in layers(theirs):
        layer.forward = forward.__get__(layer)
    theirs(**data).loss.backward()
    assert all(near(gradient, expected[name], 1e-4) for name, gradient in gradients(theirs).items())


def test_adapters_are_saved_and_loaded_under_peft_s_names(tmp_path: Path, data: dict[str, Tensor]) -> None:
    ours, theirs = pair(use_dora=True)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    names = [sorted(path.name for path in (tmp_path / side).iterdir()) for side in ("ours", "theirs")]
    assert names[0] == names[1]
    base = llama()
    quantise_linears(base, "nf4")
    config = registered(LoraConfig.from_pretrained(str(tmp_path / "theirs")))
    loaded = PeftModel.from_pretrained(base, tmp_path / "theirs", config=config)
    assert torch.equal(loaded.eval()(**data).logits, ours.eval()(**data).logits)


def test_merging_puts_plain_layers_there_and_unmerging_the_quantised_ones_back(data: dict[str, Tensor]) -> None:
    ours, theirs = pair()
    before, kept = ours(**data).logits, ours.state_dict()
    ours.merge_adapter(safe_merge=True)
    theirs.merge_adapter()
    assert all(type(layer.base_layer) is nn.Linear for layer in layers(ours))
    assert near(ours(**data).logits, before)
    assert near(ours(**data).logits, theirs(**data).logits)
    ours.unmerge_adapter()
    assert torch.equal(ours(**data).logits, before)
    assert all(torch.equal(value, kept[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize("dora", [False, True])
def test_merge_and_unload_leaves_plain_layers_with_the_model_that_was_trained(
    dora: bool, data: dict[str, Tensor]
) -> None:
    ours, theirs = pair(use_dora=dora)
    before = ours(**data).logits
    merged, others = ours.merge_and_unload(), theirs.merge_and_unload()
    assert merged.state_dict().keys() == others.state_dict().keys()
    assert not [module for module in merged.modules() if isinstance(module, QuantisedLinear)]
    assert near(merged(**data).logits, before)


def test_unloading_leaves_the_quantised_layers(data: dict[str, Tensor]) -> None:
    base = llama()
    quantise_linears(base, "nf4")
    expected = base(**data).logits
    unloaded = get_peft_model(base, registered(adapters())).unload()
    assert torch.equal(unloaded(**data).logits, expected)


def test_adapters_are_switched_mixed_and_disabled_as_ever(data: dict[str, Tensor]) -> None:
    ours, theirs = pair()
    for model in (ours, theirs):
        torch.manual_seed(5)
        model.add_adapter("other", registered(adapters(r=3)))
        model.eval()
    data = {"input_ids": data["input_ids"]}
    first = ours(**data).logits
    for model in (ours, theirs):
        model.set_adapter("other")
    second = ours(**data).logits
    assert not near(first, second, 1e-2)
    assert near(second, theirs(**data).logits)
    mixed = [model(**data, adapter_names=["other", "default"]).logits for model in (ours, theirs)]
    assert near(*mixed)
    assert near(mixed[0][1], first[1])
    with ours.disable_adapter(), theirs.disable_adapter():
        assert near(ours(**data).logits, theirs(**data).logits)
    for model in (ours, theirs):
        model.base_model.set_adapter(["default", "other"])
    assert near(ours(**data).logits, theirs(**data).logits)
    assert refusal(layers(ours)[0]) == "2 adapters are active"


def test_two_dora_adapters_merge_as_peft_merges_them(data: dict[str, Tensor]) -> None:
    ours, theirs = pair(use_dora=True)
    for model in (ours, theirs):
        torch.manual_seed(5)
        model.add_adapter("other", registered(adapters(use_dora=True)))
        model.merge_adapter(["default", "other"])
    assert near(ours(**data).logits, theirs(**data).logits, 1e-4)
    before = layers(ours)[0]._quantised[0]
    ours.unmerge_adapter()
    assert layers(ours)[0].base_layer is before


def test_a_merge_that_fails_leaves_the_quantised_base() -> None:
    ours, _ = pair(target_modules=["q_proj"])
    layer = layers(ours)[0]
    layer.lora_B["default"].weight.data[0] = float("nan")
    with pytest.raises(ValueError, match="NaNs"):
        layer.merge(safe_merge=True)
    assert isinstance(layer.base_layer, QuantisedLinear)


def test_what_a_quantised_base_cannot_have_is_refused() -> None:
    refused: dict[str, dict[str, Any]] = {
        "pissa": {"init_lora_weights": "pissa"},
        "ALoraLinearVariant": {"alora_invocation_tokens": [1, 2], "task_type": "CAUSAL_LM"},
    }
    for why, options in refused.items():
        base = llama(1)
        quantise_linears(base, "nf4")
        with pytest.raises(ValueError, match=why):
            get_peft_model(base, registered(adapters(**options)))


def test_what_keeps_peft_s_forward_says_why() -> None:
    _, theirs = pair(target_modules=["q_proj", "embed_tokens"])
    layer, *_ = layers(theirs)
    assert refusal(layer) is None
    assert "not a LoRA layer of a linear one" in str(refusal(theirs.get_input_embeddings()))
    handle = layer.lora_A["default"].register_forward_hook(lambda *_: None)
    assert refusal(layer) == "hooks look at its adapter"
    handle.remove()
    layer.base_layer.weight.requires_grad_(True)
    assert refusal(layer) == "its base is trained too"
    layer.base_layer.weight.requires_grad_(False)
    layer.lora_bias["default"] = True
    assert "lora_bias" in str(refusal(layer))


@pytest.mark.parametrize("options", [{}, {"lora_dropout": 0.5}, {"use_dora": True}, {"target_modules": ["q_proj"]}])
def test_together_is_each_on_its_own(options: dict[str, Any]) -> None:
    ours, _ = pair(**options)
    attention = ours.get_base_model().model.layers[0].self_attn
    x = torch.randn(2, 5, 64, requires_grad=True)
    modules = (attention.q_proj, attention.k_proj, attention.v_proj)
    results = []
    for one in (together, lambda x, *modules: tuple(module(x) for module in modules)):
        torch.manual_seed(1)
        ours.zero_grad()
        outputs = one(x, *modules)
        dx = torch.autograd.grad(sum(y.square().sum() for y in outputs), x, retain_graph=True)
        sum(y.square().sum() for y in outputs).backward(inputs=[p for p in ours.parameters() if p.requires_grad])
        results.append([*outputs, *dx, *(g for g in gradients(ours).values())])
    assert len(results[0]) == len(results[1])
    assert all(near(one, other) for one, other in zip(*results, strict=True))


class Alive(TorchDispatchMode):
    """Bytes of what is made in it and still lives, the most of them at once, and the shapes of what is made."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self.shapes: list[tuple[int, ...]] = []
        self._living: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        given = {id(one.untyped_storage()) for one in args if isinstance(one, Tensor)}
        for one in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(one, Tensor) and not {id(one.untyped_storage())} & (given | self._living):
                self._count(one)
        return made

    def _count(self, one: Tensor) -> None:
        storage = one.untyped_storage()
        self.shapes.append(tuple(one.shape))
        self.bytes += storage.nbytes()
        self.peak = max(self.peak, self.bytes)
        self._living.add(id(storage))
        weakref.finalize(storage, self._gone, id(storage), storage.nbytes())

    def _gone(self, storage: int, size: int) -> None:
        self._living.discard(storage)
        self.bytes -= size


def test_a_step_holds_no_weight_in_full_beyond_its_product_and_less_than_peft(data: dict[str, Tensor]) -> None:
    ours, theirs = pair()
    after_forward, peak = [], []
    for model in (ours, theirs):
        with Alive() as alive:
            loss = model(**data).loss
            after_forward.append(alive.bytes)
            loss.backward()
        peak.append(alive.peak)
    base = [module for module in ours.modules() if isinstance(module, QuantisedLinear)]
    stored = sum(module.weight.nbytes for module in base)
    full = [4 * module.in_features * module.out_features for module in base]
    # PEFT's own weights were made before and count for nothing: what lives after our forward is activations alone
    assert after_forward[0] <= after_forward[1]
    # a reference dequantises by way of a few copies, of which a GPU's one launch makes none
    assert peak[0] < peak[1] + 6 * max(full)
    assert stored + peak[0] < sum(full) + peak[1]


def test_no_gradient_of_a_plain_base_is_formed(data: dict[str, Tensor]) -> None:
    _, theirs = pair(target_modules=["gate_proj"])
    for layer in layers(theirs):
        layer.forward = forward.__get__(layer)
    with Alive() as alive:
        theirs(**data).loss.backward()
    assert (24, 128) in alive.shapes
    assert not {(128, 64), (64, 128)} & set(alive.shapes)
