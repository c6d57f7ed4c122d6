"""Tokens trained on per second, ours and transformers' and TRL's trainers: `python -m tests.bench.llm_train`.

A seeded Llama learns the replies of chat-like documents (see `tests.bench.llm_mix`), whole and by LoRA, fp32, AdamW, a
constant rate. The contenders, each in a process of its own, same weights, same documents, taking turns step by step:

- ours: packed rows through the parts of the job, with every patch that is preferred; without the probe before the first
  step, which a job has and which is no step;
- padding: transformers' Trainer (with PEFT) as it comes, each batch padded to its longest document;
- by length: the same with `train_sampling_strategy="group_by_length"`;
- TRL: SFTTrainer with `packing`, strategy bfd. It wants FlashAttention; on a CPU its best is SDPA, to which
  transformers gives the block-diagonal mask that it finds in the positions: right, but whole rows are computed.

A batch of the padded ones has 8 documents, a row of the packed ones 2,048 tokens. Each step's least time over the
rounds counts; loading is left out of times, not of memory. Validation is the mean loss of documents that nobody
trained on, by the plain model: the same measure for all. That losses are equal is told and not asserted: beside each
ratio stands by how much they differ, for contenders make their steps of different documents.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from tests.bench import llm_mix
from tests.bench.llm_mix import Talk
from tests.bench.turns import Contender, Passes, Step, race, serve

DOCUMENTS, ROW = 8, 2048  # of a padded batch, tokens of a packed row
RATE = {"whole": 5e-4, "lora": 2e-3}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
R, ALPHA = 16, 32
AIMS = {"padding": 1.4, "by length": 1.1, "TRL": 1.0}
Shape = dict[str, int]


def _data(shape: Shape) -> tuple[list[Talk], list[Talk]]:
    train = llm_mix.talks(shape["documents"], vocabulary=shape["vocabulary"], seed=2)
    return train, llm_mix.talks(24, vocabulary=shape["vocabulary"], seed=3)


def ours(link: Connection, folder: str, trains: str, shape: Shape) -> None:
    """Our training, through the parts of the job."""
    from transformers import AutoTokenizer

    from runner.checkpoints import Checkpoints
    from runner.llm import corpus
    from runner.llm.distribution.strategy import Strategy
    from runner.llm.document import Document
    from runner.llm.model import begin
    from runner.llm.model.prepared import Adapter
    from runner.llm.packing.loader import Loader
    from runner.llm.training import session
    from runner.llm.training.recipe import Rate, Recipe
    from runner.precision import Precision
    from runner.registry.resolve import resolve
    from runner.tell import Tell

    documents, kept = _data(shape)
    found = resolve(folder, folder=Path(folder))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    adapter = None
    if trains == "lora":
        adapter = Adapter(type="lora", r=R, alpha=ALPHA, target_modules=tuple(LINEAR))
    recipe = Recipe(
        rate=Rate(highest=RATE[trains], schedule="constant", warmup=0.0), accumulate=1, every_steps=10**8,
        save_every_steps=10**8,
    )  # fmt: skip
    optimize = dict.fromkeys(("attention", "kernels", "loss_chunking", "quantised_lora"), "preferred")

    def one_pass(say: Any) -> None:
        rows: list[dict[str, float]] = [{}]
        prepared = begin.prepare(
            Path(folder), facts=found.facts, family=found.family, tokenizer=tokenizer, optimize=optimize,
            adapter=adapter, precision=Precision(name="fp32", why="a benchmark"), seq_len=ROW, packing="required",
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as name:
            written = corpus.build(
                (Document(place=str(i), ids=one.ids, learned=one.learned) for i, one in enumerate(documents)),
                Path(name) / "corpus",
            )
            steps = Loader(
                corpora=[written], weights=[1.0], packed=True, seq_len=ROW, rows=1, accumulate=1, seed=0, pad_id=0,
                epochs=1, hidden=shape["hidden"],
            )  # fmt: skip
            say({"kind": "ready", "steps": steps.total})

            def metric(name: str, value: float) -> None:
                """A step's figures come at its end, its tokens after its loss and gradient norm."""
                rows[-1][name] = value
                if name == "tokens":
                    say({"kind": "train", **{one: rows[-1][one] for one in ("tokens", "loss", "grad_norm")}})
                    rows.append({})

            tell = Tell(progress=lambda *_: None, log=lambda _: None, metric=metric, check=lambda: None)
            session.train(
                prepared, steps, recipe=recipe, checkpoints=Checkpoints(Path(name) / "checkpoints"), tell=tell,
                device="cpu", strategy=Strategy(name="none", why="one process", shared=False),
            )  # fmt: skip
        say({"kind": "done", "validation": llm_mix.measured(prepared.model, kept)})

    _serve(link, one_pass, shape)


def peer(link: Connection, folder: str, trains: str, shape: Shape, strategy: str) -> None:
    """transformers' Trainer, or TRL's, with PEFT for adapters."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        PrinterCallback,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    documents, kept = _data(shape)
    rows = [
        {"input_ids": one.ids.tolist(), "labels": [-100] * one.prompt + one.ids[one.prompt :].tolist()}
        for one in documents
    ]

    def pad(found: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        joined = {
            name: torch.nn.utils.rnn.pad_sequence([torch.tensor(one[name]) for one in found], True, value)
            for name, value in (("input_ids", 0), ("labels", -100))
        }
        lengths = torch.tensor([len(one["input_ids"]) for one in found])
        return {**joined, "attention_mask": (torch.arange(lengths.max()) < lengths[:, None]).long()}

    class Turns(TrainerCallback):  # type: ignore[misc]
        def __init__(self, say: Any) -> None:
            self.say, self.tokens = say, 0

        def on_log(self, _: Any, state: Any, control: Any, logs: Any, **__: Any) -> None:
            if "grad_norm" in logs:
                say = {name: float(logs[name]) for name in ("loss", "grad_norm")}
                self.say({"kind": "train", "tokens": self.tokens, **say})
                self.tokens = 0

    def one_pass(say: Any) -> None:
        turns = Turns(say)

        def counted(collate: Any) -> Any:
            """The collator, with the tokens that are no padding counted: packed rows hold none."""

            def collator(found: Any) -> Any:
                batch = collate(found)
                mask = batch.get("attention_mask")
                turns.tokens += batch["input_ids"].numel() if mask is None else int(mask.sum())
                return batch

            return collator

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        plain: dict[str, Any] = {
            "num_train_epochs": 1, "learning_rate": RATE[trains], "lr_scheduler_type": "constant", "use_cpu": True,
            "bf16": False, "save_strategy": "no", "logging_steps": 1, "report_to": "none", "disable_tqdm": True,
            "gradient_checkpointing": False, "dataloader_pin_memory": False,
        }  # fmt: skip
        lora = LoraConfig(r=R, lora_alpha=ALPHA, target_modules=LINEAR) if trains == "lora" else None
        with tempfile.TemporaryDirectory() as name:
            if strategy == "TRL":
                from trl import SFTConfig, SFTTrainer

                arguments = SFTConfig(
                    output_dir=name, packing=True, packing_strategy="bfd", max_length=ROW,
                    per_device_train_batch_size=1, **plain,
                )  # fmt: skip
                trainer = SFTTrainer(
                    model, arguments, train_dataset=Dataset.from_list(rows), peft_config=lora, callbacks=[turns],
                    processing_class=AutoTokenizer.from_pretrained(folder),
                )  # fmt: skip
                trainer.data_collator = counted(trainer.data_collator)
            else:
                sampling = "group_by_length" if strategy == "by length" else "random"
                arguments = TrainingArguments(
                    output_dir=name, per_device_train_batch_size=DOCUMENTS, train_sampling_strategy=sampling, **plain
                )
                whole = model if lora is None else get_peft_model(model, lora)
                trainer = Trainer(
                    whole,
                    arguments,
                    train_dataset=Dataset.from_list(rows),
                    data_collator=counted(pad),
                    callbacks=[turns],
                )
            trainer.remove_callback(PrinterCallback)
            steps = len(trainer.get_train_dataloader())
            say({"kind": "ready", "steps": steps})
            trainer.train()
        say({"kind": "done", "validation": llm_mix.measured(trainer.model, kept)})

    _serve(link, one_pass, shape)


def _serve(link: Connection, one_pass: Any, shape: Shape) -> None:
    """Take turns with the steps of ``one_pass``; what is not training has no share."""

    def work() -> Iterator[Step]:
        total = 0
        for told in llm_mix.by_steps(one_pass, threads=shape["threads"]):
            total = told.get("steps", total)
            share = {"ready": 0.0, "train": 0.999 / total, "done": 0.001}[told["kind"]]
            yield {**told, "share": share}

    torch.set_num_threads(shape["threads"])
    serve(link, work, warm=lambda: None)


def speed(passes: Passes) -> float:
    """Tokens without padding in a second, each step at its best."""
    trained = [steps for steps in zip(*passes.steps, strict=True) if steps[0]["kind"] == "train"]
    return sum(one[0]["tokens"] for one in trained) / sum(min(step["wall_s"] for step in one) for one in trained)


def row(name: str, passes: Passes, *, flops: float, rate: float) -> dict[str, Any]:
    """All figures of a contender."""
    last = passes.steps[-1]
    trained = [step for step in last if step["kind"] == "train"]
    return {
        "contender": name,
        "tokens_per_s": speed(passes),
        "gemm_share": speed(passes) * flops / rate / 1e9,
        "tokens": sum(step["tokens"] for step in trained),
        "steps": len(trained),
        "loss": [round(step["loss"], 4) for step in trained],
        "grad_norm": [round(step["grad_norm"], 4) for step in trained],
        "validation_loss": last[-1]["validation"],
        "peak_gb": max(step["peak_gb"] for steps in passes.steps for step in steps if step["kind"] == "train"),
    }


def shown(one: dict[str, Any]) -> str:
    """A row for people."""
    return (
        f"  {one['contender']:<10} {one['tokens_per_s']:7.0f} tokens/s ({one['gemm_share']:.0%} of the matrix rate), "
        f"{one['tokens']} tokens without padding in {one['steps']} steps, peak {one['peak_gb']:.2f} GB, validation "
        f"{one['validation_loss']:.4f}\n             loss {one['loss'][0]:.3f} ... {one['loss'][-1]:.3f}, "
        f"gradient norm {one['grad_norm'][0]:.3f} ... {one['grad_norm'][-1]:.3f}"
    )


def compared(our: dict[str, Any], other: dict[str, Any]) -> str:
    """The ratio of the speeds, its aim, and by how much our validation loss differs."""
    name = other["contender"]
    ratio = our["tokens_per_s"] / other["tokens_per_s"]
    differs = our["validation_loss"] / other["validation_loss"] - 1
    met = "met" if ratio >= AIMS[name] else "missed"
    return f"  ours / {name}: {ratio:.2f}x (aim {AIMS[name]}: {met}), validation loss {differs:+.2%}"


def contest(trains: str, shape: Shape, *, rounds: int, names: list[str]) -> list[dict[str, Any]]:
    """One way to train, all contenders; the rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = str(
            llm_mix.llama(
                Path(name) / "model", hidden=shape["hidden"], layers=shape["layers"], vocabulary=shape["vocabulary"]
            )
        )
        everyone: dict[str, Contender] = {"ours": (ours, (folder, trains, shape))}
        everyone |= {one: (peer, (folder, trains, shape, one)) for one in AIMS}
        found = race({one: everyone[one] for one in everyone if one in names}, rounds=rounds)
        flops = llm_mix.products(folder, trains)
    rate = llm_mix.gemm_gflops(shape["threads"])
    print(f"{trains}: {flops / 1e6:.0f} MFLOP a token in products with weights, matrix rate {rate:.0f} GFLOP/s")
    rows = [row(one, passes, flops=flops, rate=rate) | {"trains": trains} for one, passes in found.items()]
    for one in rows:
        print(shown(one))
    if "ours" in found:
        for other in rows[1:]:
            print(compared(rows[0], other), flush=True)
    return rows


def main() -> None:
    """Print every contender's figures and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="passes of each; each step's least time counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--documents", type=int, default=96)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--trains", choices=list(RATE), nargs="+", default=list(RATE))
    parser.add_argument("--contenders", nargs="+", default=["ours", *AIMS], metavar="NAME")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the rows as JSON")
    args = parser.parse_args()
    shape = {name: getattr(args, name) for name in ("threads", "documents", "hidden", "layers", "vocabulary")}
    versions = {name: version(name) for name in ("torch", "transformers", "peft", "trl", "accelerate")}
    print(f"{args.threads} threads; {', '.join(map(' '.join, versions.items()))}; {platform.machine()}")
    rows = [one for trains in args.trains for one in contest(trains, shape, rounds=args.rounds, names=args.contenders)]
    if args.save:
        args.save.write_text(json.dumps({"versions": versions, "shape": shape, "rows": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
