"""A document's loss and gradient are the same in a packed row as in a padded batch, and it sees no other."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from runner.kernels import probe
from runner.kernels.attention import choices, use_attention
from runner.kernels.patching import PatchError
from runner.llm import corpus
from runner.llm.document import Document
from runner.llm.packing import form
from runner.llm.packing.loader import Loader
from runner.llm.packing.step import Batch
from tests.registry import tiny_llm

FAMILIES = ["llama", "qwen3", "gemma2", "mixtral", "qwen3-moe", "qwen2-vl", "gemma3-vision"]
LENGTHS = [9, 5, 14, 3, 20, 2]  # windows of the tiny models are of 8


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> corpus.Corpus:
    draw = np.random.default_rng(0)
    made = []
    for number, length in enumerate(LENGTHS):
        taught = draw.random(length) < 0.7
        taught[0], taught[-1] = False, True
        made.append(Document(place=str(number), ids=draw.integers(3, 40, length).astype(np.int32), learned=taught))
    return corpus.build(made, tmp_path_factory.mktemp("corpus") / "made")


def model(name: str, attention: str) -> Any:
    made = tiny_llm.model(name).train()
    if attention == "ours":
        use_attention(made)
    else:
        made.set_attn_implementation(attention)
    return made


def batch(one: corpus.Corpus, made: Any, *, packed: bool) -> Batch:
    """All documents in one forward pass."""
    axes = form.position_axes(made.config)
    loader = Loader(
        corpora=[one],
        weights=[1.0],
        packed=packed,
        seq_len=64,
        rows=1 if packed else len(LENGTHS),
        accumulate=1,
        seed=0,
        pad_id=0,
        epochs=1,
        position_axes=axes,
    )
    (found,) = next(loader.begin(0)).batches
    return found


def losses(made: nn.Module, given: Batch) -> tuple[dict[tuple[int, ...], Tensor], dict[str, Tensor]]:
    """The loss of each document by its tokens, and the gradient of all parameters by their sum."""
    made.zero_grad()
    labels = given["labels"]
    logits = made(**{key: one for key, one in given.items() if key != "labels"}).logits
    each = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
    each = nn.functional.pad(each.view(len(labels), -1), (1, 0))  # at the place of the token that is predicted
    torch.autograd.backward(each.sum())
    ids = given["input_ids"]
    if "attention_mask" in given:
        spans = [(row, 0, int(width)) for row, width in enumerate(given["attention_mask"].sum(1))]
    else:
        edges = given["cu_seq_lens_q"].tolist()
        spans = [(0, start, stop) for start, stop in itertools.pairwise(edges)]
    return (
        {tuple(ids[row, start:stop].tolist()): each[row, start:stop].detach().sum() for row, start, stop in spans},
        {name: one.grad.clone() for name, one in made.named_parameters() if one.grad is not None},
    )


@pytest.mark.parametrize("attention", ["eager", "sdpa", "ours"])
@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_gradient_of_each_document_are_those_of_a_padded_batch(
    name: str, attention: str, learned: corpus.Corpus
) -> None:
    made = model(name, attention)
    packed = batch(learned, made, packed=True)
    ours, our_gradients = losses(made, packed)
    theirs, their_gradients = losses(made, batch(learned, made, packed=False))
    assert sorted(map(len, ours)) == sorted(LENGTHS)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(our_gradients, their_gradients, atol=2e-5, rtol=2e-4)
    assert max(float(one.abs().max()) for one in our_gradients.values()) > 0.1
    probe.contamination(made, packed, documents=len(LENGTHS))
    assert form.refusal(made.config) is None
    assert attention != "ours" or choices(made)


def test_transformers_mixes_packed_rows_of_gpt_oss_and_our_attention_does_not(learned: corpus.Corpus) -> None:
    """It makes the mask of this family without looking at positions; ours goes by cu_seq_lens."""
    alone = model("gpt-oss", "eager")
    with pytest.raises(PatchError, match="Documents of a packed row see each other"):
        probe.contamination(alone, batch(learned, alone, packed=True))
    made = model("gpt-oss", "ours")
    packed = batch(learned, made, packed=True)
    probe.contamination(made, packed, documents=len(LENGTHS))
    torch.testing.assert_close(
        losses(made, packed)[0], losses(made, batch(learned, made, packed=False))[0], atol=1e-5, rtol=1e-5
    )


def test_models_with_several_axes_of_positions_mix_documents_on_one(learned: corpus.Corpus) -> None:
    made = model("qwen2-vl", "sdpa")
    packed = batch(learned, made, packed=True)
    assert packed["position_ids"].shape == (4, 1, sum(LENGTHS))
    with pytest.raises(PatchError, match="Documents of a packed row see each other"):
        probe.contamination(made, packed | {"position_ids": packed["position_ids"][0]})


def test_a_mask_beside_positions_that_restart_mixes_documents(learned: corpus.Corpus) -> None:
    """Why packed batches have none."""
    made = model("llama", "sdpa")
    packed = batch(learned, made, packed=True)
    with pytest.raises(PatchError, match="Documents of a packed row see each other"):
        probe.contamination(made, packed | {"attention_mask": torch.ones_like(packed["input_ids"])})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer_types": ["linear_attention", "full_attention"]}, "layers of linear_attention, whose state goes on"),
        ({"is_encoder_decoder": True}, "has an encoder"),
    ],
)
def test_why_rows_of_a_model_cannot_be_packed_is_said_in_words(changes: dict[str, Any], words: str) -> None:
    config = PreTrainedConfig()
    for name, value in changes.items():
        setattr(config, name, value)
    assert words in str(form.refusal(config))
