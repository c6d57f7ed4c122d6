"""What is looked at before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from runner import ranks
from runner.llm.model import begin, probing
from runner.llm.model.prepared import Adapter
from runner.schema.errors import JobError
from tests.llm.model import made

LORA = Adapter(type="lora", r=2)


@pytest.mark.parametrize(
    "family", ["llama", "qwen3-moe", "gemma2", "gpt-oss", "deepseek-v2", "qwen2-5-vl", "gemma3-vision"]
)
def test_packed_documents_are_kept_apart_in_every_kind_of_model(family: str, tmp_path: Path) -> None:
    prepared = made.prepared(made.folder(tmp_path, family), packing="required")
    assert prepared.packed
    batch = made.for_axes(made.packed(7, 12, 5), prepared.model.config)
    state = torch.get_rng_state()
    probed = begin.probe(prepared, batch)
    assert probed.packed
    lines = {line.what: line for line in probed.ledger}
    assert lines["packing"].applied
    assert lines["attention"].applied, lines["attention"].why
    assert "exactly 0" in lines["packing"].why
    assert lines["linear_cross_entropy"].parity_error is not None
    assert lines["rms_norm"].applied is False  # on a CPU
    assert lines["probe"].why.startswith("on 24 tokens: loss ")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(one.grad is None for one in prepared.model.parameters())


@pytest.mark.parametrize("given", [{}, {"quantize": "nf4"}, {"checkpointing": "required"}, {"precision": made.BF16}])
def test_an_adapter_is_probed_in_every_way_it_trains(given: dict[str, Any], tmp_path: Path) -> None:
    prepared = made.prepared(made.folder(tmp_path, "llama"), adapter=LORA, **given)
    probed = begin.probe(prepared, made.packed(7, 12, 5))
    lines = {line.what: line for line in probed.ledger}
    assert lines["lora_linear"].applied, lines["lora_linear"].why
    assert lines["lora_linear"].parity_error is not None
    assert lines["checkpointing"].applied == ("checkpointing" in given)
    assert probed.packed


def mixed(prepared: Any) -> None:
    """Break it: every token sees what another document brought along."""
    embeddings = prepared.model.get_input_embeddings()
    layer = prepared.model.model.layers[0]
    assert embeddings is not None
    layer.register_forward_hook(lambda _module, _args, out: out + out.mean(1, keepdim=True))


def test_documents_that_see_each_other_are_padded_or_refused(tmp_path: Path) -> None:
    base = made.folder(tmp_path, "llama")
    preferred, required = (made.prepared(base, packing=word) for word in ("preferred", "required"))
    for prepared in (preferred, required):
        mixed(prepared)
    probed = begin.probe(preferred, made.packed(7, 12, 5))
    assert not probed.packed
    line = next(line for line in probed.ledger if line.what == "packing")
    assert line.why.startswith("documents are padded instead: Documents of a packed row see each other")
    with pytest.raises(JobError, match="see each other") as error:
        begin.probe(required, made.packed(7, 12, 5))
    assert error.value.failure == "Infeasible"


def test_without_the_probe_documents_are_still_held_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = made.folder(tmp_path, "llama")
    monkeypatch.setattr("runner.kernels.probe.probe", None)  # nobody calls it
    prepared, padded = made.prepared(base), made.prepared(base, packing="off")
    probed = begin.probe(prepared, made.packed(7, 12, 5, 6), patches=False)
    assert "each of 4 documents by the tokens of the others is exactly 0" in probed.packing_why
    assert "probe" not in {line.what for line in probed.ledger}
    assert begin.probe(padded, made.padded(7, 12), patches=False) is padded
    mixed(prepared)
    assert not begin.probe(prepared, made.packed(7, 12, 5), patches=False).packed


def test_every_document_that_the_ledger_counts_was_looked_at(tmp_path: Path) -> None:
    """Here the second of four sees the third, which the others do not."""
    prepared = made.prepared(made.folder(tmp_path, "llama"))
    documents = [slice(0, 7), slice(7, 19), slice(19, 24), slice(24, 30)]

    def mix(_module: Any, _args: Any, out: torch.Tensor) -> torch.Tensor:
        parts = [out[:, one] for one in documents]
        parts[1] = parts[1] + parts[2].mean(1, keepdim=True)
        return torch.cat(parts, 1)

    prepared.model.model.layers[0].register_forward_hook(mix)
    probed = begin.probe(prepared, made.packed(7, 12, 5, 6), patches=False)
    assert "the loss of 1 depends on the tokens of [2]" in probed.packing_why


@pytest.mark.parametrize("word", ["off", "required"])
def test_a_model_that_learns_nothing_is_an_error(word: Any, tmp_path: Path) -> None:
    prepared = made.prepared(made.folder(tmp_path, "llama"), packing=word)
    with torch.no_grad():
        prepared.model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(JobError, match="Nothing would be learned: the loss is nan") as error:
        begin.probe(prepared, made.padded(7, 12) if word == "off" else made.packed(7, 12))
    assert error.value.failure == "NaN"


def test_what_another_process_took_out_is_taken_out_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = made.prepared(made.folder(tmp_path, "llama"), adapter=LORA)
    answers = iter([[{"attention", "lora_linear"}, {"attention"}], [None, "they see each other there"]])
    monkeypatch.setattr(ranks, "of_all", lambda _: next(answers))
    probed = begin.probe(prepared, made.packed(7, 12, 5))
    assert set(probed.applied.found) == {"attention"}
    assert {line.what for line in probed.ledger if line.applied} == {"attention", "probe"}
    assert probed.packing_why == "documents are padded instead: they see each other there"


def test_probes_are_of_short_documents(tmp_path: Path) -> None:
    long = made.packed(1200, 2000, 30)
    long["labels"][:, :700] = -100  # a long prompt
    few = probing.small(long, torch.device("cpu"))
    assert few["cu_seq_lens_q"].tolist() == [0, 512, 542, 1054, 1566]
    assert few["max_length_q"] == 512
    begin_of = few["cu_seq_lens_q"][:-1].long()
    assert few["position_ids"][0, begin_of].tolist() == [0, 0, 0, 0]
    assert (few["labels"][0, begin_of] == -100).all()
    assert few["input_ids"][0, :512].tolist() == long["input_ids"][0, 1200:1712].tolist()
    rows = made.padded(40, 3000, 700)
    rows["labels"][:, :650] = -100
    short = probing.small(rows, torch.device("cpu"))
    assert short["input_ids"].shape == (2, 512)
    assert (short["labels"] != -100).any()


def test_a_model_that_mixes_documents_by_itself_is_not_packed_without_our_attention(tmp_path: Path) -> None:
    base = made.folder(tmp_path, "gpt-oss")
    prepared = made.prepared(base, optimize=made.ALL | {"attention": "off"})
    batch = made.packed(7, 12, 5)
    probed = begin.probe(prepared, batch)
    assert not probed.packed
    assert next(line for line in probed.ledger if line.what == "linear_cross_entropy").applied
