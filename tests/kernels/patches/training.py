"""Steps of training on tiny models, with patches and without."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from runner.kernels.ledger import Wanted
from runner.kernels.patching import FORWARDS
from runner.registry.recognise import families
from tests.registry import tiny_llm

NAMES = sorted(name for name, family in families().items() if family.language is not None)
BIASES = {"attention_bias": True, "mlp_bias": True}
CHANGES: Mapping[str, dict[str, Any]] = {
    "granite": {"logits_scaling": 8.0},
    "llama": BIASES,
    "gemma2": BIASES,
    "qwen3-moe": {"mlp_only_layers": [0]},  # one layer with an MLP, one with experts
}
FEWER = {  # layers, where the tiny model has more than one of each kind needs
    "gemma3": {"num_hidden_layers": 2},
    "modernbert": {"num_hidden_layers": 2},
    "smollm3": {"num_hidden_layers": 2, "no_rope_layers": [1, 0]},
}
LENGTH = 9


def wanted(name: str, word: Wanted = "required") -> dict[str, Wanted]:
    """What the registry wants of a family, but for adapters, which a bare model has none of."""
    language = families()[name].language
    assert language is not None
    return {patch: word for patch in language.patches if patch in FORWARDS and patch != "lora_linear"}


def model(name: str, device: str = "cpu", **changes: Any) -> Any:
    """The tiny model of a family, whose norms are not all ones and which has no dropout."""
    made = tiny_llm.model(name, **CHANGES.get(name, {}) | changes).train()
    with torch.no_grad():
        for path, x in made.named_parameters():
            if "norm" in path.lower():
                x.add_(0.3 * torch.sin(torch.arange(x.numel())))
    for part in made.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        for field in ("dropout_prob", "attention_dropout"):
            if isinstance(getattr(part, field, None), float):
                setattr(part, field, 0.0)
    return made.to(device)


def smaller(name: str) -> dict[str, Any]:
    """Changes for Triton's interpreter, which takes 60 ms for one head of one document: fewer heads and layers."""
    _, fields = tiny_llm.MODELS[name]
    halved = ("num_attention_heads", "num_key_value_heads")
    return {key: fields[key] // 2 for key in halved if key in fields} | FEWER.get(name, {})


def batch(name: str, seed: int, device: str = "cpu") -> dict[str, Tensor]:
    """Two texts, of which the second has padding; prompts have no labels."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 40, (2, LENGTH), generator=random)
    mask = torch.ones_like(ids)
    mask[1, -3:] = 0
    fields = {"input_ids": ids, "attention_mask": mask}
    language = families()[name].language
    assert language is not None
    if language.head:
        labels = ids.masked_fill(mask == 0, -100)
        labels[:, :2] = -100
        fields["labels"] = labels
    if name.startswith("gemma3"):
        fields["token_type_ids"] = torch.zeros_like(ids)
    return {key: x.to(device) for key, x in fields.items()}


def loss_of(made: Any, fields: dict[str, Tensor]) -> Tensor:
    """The model's loss, or how far an encoder's states are from given ones."""
    out = made(**fields)
    if "labels" in fields:
        loss: Tensor = out.loss
        return loss
    states: Tensor = out.last_hidden_state
    weights = torch.sin(torch.arange(states.numel(), device=states.device)).view_as(states)
    return ((states - weights).square() * fields["attention_mask"][..., None]).mean()


def step(made: Any, fields: dict[str, Tensor]) -> tuple[float, dict[str, Tensor | None]]:
    """Loss and the gradient of every parameter."""
    made.zero_grad()
    loss = loss_of(made, fields)
    loss.backward()
    return loss.item(), {name: x.grad for name, x in made.named_parameters() if x.requires_grad}


def must_agree(ours: Any, theirs: Any, fields: dict[str, Tensor], tolerance: float = 2e-5) -> None:
    """One step of both: the same loss, and gradients of every trainable parameter that are the same."""
    (loss, gradients), (usual, truths) = step(ours, fields), step(theirs, fields)
    assert abs(loss - usual) <= 1e-5 * abs(usual), (loss, usual)
    largest = max(truth.abs().max().item() for truth in truths.values() if truth is not None)
    for name, truth in truths.items():
        mine = gradients[name]
        assert (mine is None) == (truth is None), name
        if mine is not None and truth is not None:
            error = (mine - truth).abs().max().item()
            assert error <= tolerance * (truth.abs().max().item() + 0.01 * largest), f"{name}: {error:.1e}"


def losses(made: Any, name: str, steps: int, device: str = "cpu") -> list[float]:
    """Of so many steps of plain SGD."""
    optimizer = torch.optim.SGD([x for x in made.parameters() if x.requires_grad], lr=0.05)
    seen = []
    for number in range(steps):
        loss, _ = step(made, batch(name, number, device))
        seen.append(loss)
        optimizer.step()
    return seen


def twins(name: str, device: str = "cpu", **changes: Any) -> tuple[Any, Any]:
    """The same model twice."""
    made = model(name, device, **changes)
    return made, copy.deepcopy(made)
