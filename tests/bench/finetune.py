"""Audio seconds trained on per CPU-second, ours and transformers' Trainer: `python -m tests.bench.finetune`.

One epoch of specs/quickstart/finetune/train.jsonl with the quickstart's model, whole and with frozen convolutions: the
same clips from disk, as many in a step, fp32, AdamW, one thread, no augmentation. The peer is a plain Trainer that pads
clips to the longest of their batch: at its best, with clips of like length together, and as tutorials have it, with
clips in random order. Epochs take turns; the fastest of each counts. GFLOP/s are the multiplications that torch counts
in one batch; beside them is a matrix product's rate.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.bench.turns import Contender, Passes, Step, race, serve

QUICKSTART = Path(__file__).parents[2] / "specs" / "quickstart"
TABLE = QUICKSTART / "finetune" / "train.jsonl"
SECONDS = 20.0  # in one of our batches
CLIPS = 9  # in one of the peer's: ours have 9 on average
MATRIX = 1024


def ours(link: Connection, freeze: bool) -> None:
    """Our training, through the parts of the job."""
    import torch

    from runner.asr import recordings
    from runner.asr.pieces import Source
    from runner.asr.training import corpus, session
    from runner.asr.training.network import Dropouts
    from runner.asr.training.recipe import Augmentation, Masks, Rate, Recipe
    from runner.checkpoints import Checkpoints
    from runner.tell import Tell

    clips = list(recordings.from_manifest(TABLE, name=None, root=None, folder=TABLE.parent, unpacked=TABLE.parent))
    data = corpus.read(
        clips, [{} for _ in clips], field="train", normalise=str, channels="mix", rate=16_000, receptive=400, threads=1
    )
    one = data.without(set(range(1, len(data))))  # the last step is always measured: on one clip
    source = Source(
        folder=str(QUICKSTART / "model"), rate=16_000, stride=320, receptive=400, waveform=True, normalise=True,
        mask=True, allow_pickle=False, trust_remote_code=False, adapter=None,
    )  # fmt: skip
    recipe = Recipe(
        epochs=1, steps=None, rate=Rate(highest=1e-4, warmup=0.1, hold=0.4, decay="linear", floor=0.02),
        weight_decay=0.01, betas=(0.9, 0.98), clip_norm=1.0, accumulate=1, seconds=SECONDS, clips=64,
        shortest_first=False, augmentation=Augmentation(), checkpointing=False, precision="fp32",
        every_steps=None, patience=None, seed=0,
    )  # fmt: skip
    tell = Tell(progress=lambda *_: None, log=lambda _: None, metric=lambda *_: None, check=lambda: None)

    def epoch() -> Iterator[Step]:
        none = Dropouts(values=0.0, layers=0.0)
        learner = session.begin(
            source, wanted=_same, masks=Masks(), dropouts=none, seed=0, device="cpu", threads=1
        )  # fmt: skip
        examiner = learner.examiner(one, check=lambda: None)
        with tempfile.TemporaryDirectory() as name:
            run = session.train(
                learner, data=data, examiner=examiner, recipe=recipe, lora=None, freeze=freeze, device="cpu", threads=1,
                checkpoints=Checkpoints(Path(name)), tell=tell,
            )  # fmt: skip
        yield {"share": 1.0, "audio_s": data.seconds, "optimiser_steps": run.steps}

    torch.set_num_threads(1)
    serve(link, epoch, warm=lambda: list(epoch()))


def _same(was: Any) -> Any:
    return was


def peer(link: Connection, freeze: bool, by_length: bool) -> None:
    """transformers' Trainer with a collator that pads sound and labels."""
    import soundfile
    import torch
    from transformers import AutoModelForCTC, AutoProcessor, PrinterCallback, Trainer, TrainingArguments
    from transformers.trainer_pt_utils import LengthGroupedSampler

    torch.set_num_threads(1)
    rows = [json.loads(line) for line in TABLE.read_text("utf-8").splitlines()]
    processor = AutoProcessor.from_pretrained(QUICKSTART / "model")
    headers = [soundfile.info(TABLE.parent / row["audio"]) for row in rows]
    seconds = sum(one.duration for one in headers)

    class Peer(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            """Its own `group_by_length` would read every clip to see how long it is, so lengths are given."""
            if by_length:
                return LengthGroupedSampler(CLIPS, lengths=[one.frames for one in headers])
            return super()._get_train_sampler(train_dataset)

    class Clips(torch.utils.data.Dataset[dict[str, Any]]):
        def __getitem__(self, index: int) -> dict[str, Any]:
            samples, rate = soundfile.read(TABLE.parent / rows[index]["audio"], dtype="float32")
            values = processor(samples, sampling_rate=rate).input_values[0]
            return {"input_values": values, "labels": processor.tokenizer(rows[index]["text"]).input_ids}

        def __len__(self) -> int:
            return len(rows)

    def collate(found: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = processor.feature_extractor.pad([{"input_values": one["input_values"]} for one in found],
                                                padding=True, return_tensors="pt")  # fmt: skip
        labels = processor.tokenizer.pad([{"input_ids": one["labels"]} for one in found], return_tensors="pt")
        hidden = labels["input_ids"].masked_fill(labels["attention_mask"].ne(1), -100)
        return {**batch, "labels": hidden}

    def epoch() -> Iterator[Step]:
        model = AutoModelForCTC.from_pretrained(QUICKSTART / "model", ctc_loss_reduction="mean")
        if freeze:
            model.freeze_feature_encoder()
        with tempfile.TemporaryDirectory() as name:
            arguments = TrainingArguments(
                output_dir=name, num_train_epochs=1, per_device_train_batch_size=CLIPS, learning_rate=1e-4,
                use_cpu=True, save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
            )  # fmt: skip
            trainer = Peer(model, arguments, data_collator=collate, train_dataset=Clips())
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        yield {"share": 1.0, "audio_s": seconds, "optimiser_steps": trainer.state.global_step}

    serve(link, epoch, warm=lambda: list(epoch()))


def multiplications(freeze: bool) -> tuple[float, float]:
    """Floating-point operations of one step for a second of audio, and those of matrix products in a second; in 1e9."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCTC

    torch.set_num_threads(1)
    model = AutoModelForCTC.from_pretrained(QUICKSTART / "model").train()
    if freeze:
        model.freeze_feature_encoder()
    batch = {"input_values": torch.randn(CLIPS, 2 * 16_000), "labels": torch.randint(5, 40, (CLIPS, 30))}
    with FlopCounterMode(display=False) as counted:
        model(**batch).loss.backward()
    square = torch.randn(MATRIX, MATRIX)
    best = min(_spent(lambda: square @ square) for _ in range(10))
    return counted.get_total_flops() / (2 * CLIPS) / 1e9, 2 * MATRIX**3 / best / 1e9


def _spent(work: Any) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    """Print both forms of training, ours beside the peer's two, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each; the fastest counts")
    rounds = parser.parse_args().rounds
    import torch
    import transformers

    print(f"torch {torch.__version__}, transformers {transformers.__version__}, one thread")
    for freeze in (False, True):
        contenders: dict[str, Contender] = {
            "ours": (ours, (freeze,)),
            "Trainer by length": (peer, (freeze, True)),
            "Trainer at random": (peer, (freeze, False)),
        }
        found = race(contenders, rounds=rounds)
        print("convolutions frozen" if freeze else "all weights trained")
        work, rate = multiplications(freeze)
        for name, passes in found.items():
            print(f"  {name:<17} {_line(passes, work=work, rate=rate)}")
        for name in list(contenders)[1:]:
            print(f"  ours / {name}: {_speed(found['ours']) / _speed(found[name]):.2f}", flush=True)


def _speed(passes: Passes) -> float:
    return passes.total("audio_s") / passes.seconds("cpu_s")


def _line(passes: Passes, *, work: float, rate: float) -> str:
    speed = _speed(passes)
    return (
        f"{speed:6.1f} audio-s per CPU-s, {speed * work:5.1f} GFLOP/s, {speed * work / rate:.0%} of the matrix rate "
        f"({rate:.0f}), {passes.total('optimiser_steps'):.0f} steps"
    )


if __name__ == "__main__":
    main()
