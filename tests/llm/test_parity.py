"""The same data gives what transformers' own Trainer and PEFT give, and packed rows what padded batches give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, PrinterCallback, Trainer, TrainingArguments

from runner.checkpoints import Checkpoints
from runner.llm import corpus
from runner.llm.corpus import Corpus
from runner.llm.document import Document
from runner.llm.model.prepared import Adapter
from runner.llm.packing.loader import Loader
from runner.llm.training import journal, session
from runner.llm.training.recipe import Rate, Recipe
from runner.tell import Tell
from tests.llm.model import made
from tests.llm.training import small

FAMILIES = ("llama", "qwen3", "gemma2", "qwen3-moe")
QUIET = Tell(progress=lambda *_: None, log=lambda _: None, metric=lambda *_: None, check=lambda: None)
RATE, ROWS, PASSES = 1e-2, 2, 4
TARGETS = ["q_proj", "v_proj", "o_proj"]
LORA = Adapter(type="lora", r=4, target_modules=tuple(TARGETS))


def documents(folder: Path, count: int = 8) -> Corpus:
    """Documents of 5 to 40 tokens; the first half or so of each is not learned."""
    random = np.random.default_rng(0)
    lengths = random.integers(5, 41, count)
    rows = [(random.integers(3, 40, length, dtype=np.int32), max(1, length // 2)) for length in lengths]
    return corpus.build(
        (Document(place=str(i), ids=ids, learned=np.arange(len(ids)) >= cut) for i, (ids, cut) in enumerate(rows)),
        folder,
    )


def loader(data: Corpus, **more: Any) -> Loader:
    usual: dict[str, Any] = {"packed": False, "seq_len": 64, "rows": ROWS, "accumulate": PASSES}
    return Loader(corpora=[data], weights=[1.0], seed=0, pad_id=0, **usual | more)


def ours(base: Path, steps: Loader, folder: Path, *, adapter: Adapter | None) -> list[dict[str, Any]]:
    """Loss and gradient norm of each step."""
    prepared = made.prepared(base, adapter=adapter, packing="required" if steps.packed else "off")
    recipe = Recipe(
        rate=Rate(highest=RATE, schedule="constant", warmup=0.0), accumulate=steps.accumulate, every_steps=10**6
    )
    session.train(
        prepared, steps, recipe=recipe, checkpoints=Checkpoints(folder), tell=QUIET, device="cpu", strategy=small.ALONE
    )
    return [json.loads(line) for line in (folder / journal.TRAINING).read_text().splitlines()]


class Plain(Trainer):  # type: ignore[misc]
    """transformers' own, which takes the rows in their order."""

    def _get_train_sampler(self, *_: Any) -> Any:
        return SequentialSampler(self.train_dataset)


def theirs(base: Path, steps: Loader, folder: Path, *, adapter: Adapter | None) -> list[dict[str, float]]:
    """The same of a plain Trainer, which pads and divides as it does; the documents in the order of ``steps``."""
    rows = [row for step in steps.begin(0) for batch in step.batches for row in unpadded(batch)]
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = get_peft_model(model, LoraConfig(r=adapter.r, lora_alpha=2 * adapter.r, target_modules=TARGETS))
    arguments = TrainingArguments(
        output_dir=str(folder), num_train_epochs=1, per_device_train_batch_size=ROWS,
        gradient_accumulation_steps=PASSES, learning_rate=RATE, lr_scheduler_type="constant", logging_steps=1,
        use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Plain(model, arguments, train_dataset=rows, data_collator=padded)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return [row for row in trainer.state.log_history if "grad_norm" in row]


def unpadded(batch: dict[str, Any]) -> list[dict[str, Tensor]]:
    lengths = batch["attention_mask"].sum(1).tolist()
    return [
        {"input_ids": ids[:length], "labels": labels[:length]}
        for ids, labels, length in zip(batch["input_ids"], batch["labels"], lengths, strict=True)
    ]


def padded(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    mask = [torch.ones_like(row["input_ids"]) for row in rows]
    return {
        "input_ids": pad_sequence([row["input_ids"] for row in rows], batch_first=True),
        "labels": pad_sequence([row["labels"] for row in rows], batch_first=True, padding_value=-100),
        "attention_mask": pad_sequence(mask, batch_first=True),
    }


def must_agree(a: list[dict[str, Any]], b: list[dict[str, Any]], *, steps: int) -> None:
    assert len(a) == len(b) == steps
    for mine, plain in zip(a, b, strict=True):
        assert mine["loss"] == pytest.approx(plain["loss"], rel=1e-3)
        assert mine["grad_norm"] == pytest.approx(plain["grad_norm"], rel=5e-3)
    assert a[-1]["loss"] < a[0]["loss"] * 0.99, "nothing was learned, so nothing was compared"


@pytest.mark.parametrize("adapter", [None, LORA], ids=["whole", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_unpacked_training_is_the_trainers_own(family: str, adapter: Adapter | None, tmp_path: Path) -> None:
    base, steps = made.folder(tmp_path / "base", family), loader(documents(tmp_path / "corpus"), epochs=4)
    mine = ours(base, steps, tmp_path / "ours", adapter=adapter)
    must_agree(mine, theirs(base, steps, tmp_path / "theirs", adapter=adapter), steps=4)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_training_is_the_same_as_padded(family: str, tmp_path: Path) -> None:
    base, data = made.folder(tmp_path / "base", family), documents(tmp_path / "corpus")
    rows = loader(
        data, packed=True, rows=1, accumulate=1, epochs=1
    ).total  # of an epoch: a step is to be the whole of it
    packed = loader(data, packed=True, rows=1, accumulate=rows, epochs=4)
    apart = loader(data, epochs=4)
    assert rows < len(data)
    must_agree(
        ours(base, packed, tmp_path / "packed", adapter=None),
        ours(base, apart, tmp_path / "apart", adapter=None),
        steps=4,
    )
