"""Speed of asr-transcribe's worker against transformers' pipeline on the wav2vec2-large architecture.

    python -m tests.bench.asr_large [--threads 2] [--seconds 120] [--rounds 2] [--save FILE]

Seeded weights, so the figures hold for any checkpoint of this shape while the texts mean nothing; the output layer is
scaled until they change with the sound. Each contender is a process of its own with the same clips and threads; they
take turns batch by batch (see ``turns``). Loading and one warm-up clip are not timed; ours is timed with decoding files
and making words, the pipeline is handed samples in memory. Batches 4 and 8 of the pipeline alter texts: it decodes the
padding too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.turns import Contender, Passes, Step, race, serve

PIPELINES = (1, 4, 8)
LARGE = {
    "vocab_size": 45,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
    "pad_token_id": 0,
    "apply_spec_augment": False,
}
TARGETS = (
    ("ours fp32", "the pipeline's best", 1.05),
    ("ours fp32", "its batch 8", 2.0),
    ("ours bf16", "the pipeline's best", 1.8),
)
GEMM = (2048, 1024, 4096)  # rows, in, out: a feed-forward layer over 40 s


def main() -> None:
    args = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lengths = make_clips(folder / "clips", seconds=args.seconds)
        run_alone(make_model, folder / "model", folder / "clips")
        report = measure(folder, args, lengths)
    print_report(report)
    if args.save:
        Path(args.save).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=120.0, help="useful audio, at least")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each contender; the best counts")
    parser.add_argument("--precision", nargs="*", default=["fp32", "auto"], help="ours; not twice the same format")
    parser.add_argument("--batch-s", type=float, default=None, help="ours: seconds in one batch")
    parser.add_argument("--save", metavar="FILE", help="write the report as JSON")
    return parser.parse_args()


def make_clips(folder: Path, *, seconds: float) -> list[float]:
    """Clips of 1 to 15 s as 16-bit wav at 16 kHz, in random order, seeded. Their lengths in seconds."""
    import soundfile

    from tests.asr.tiny import sound

    folder.mkdir(parents=True)
    random = np.random.default_rng(7)
    lengths: list[float] = []
    while sum(lengths) < seconds:
        lengths.append(round(float(random.uniform(1.0, 15.0)), 2))
        clip = sound(lengths[-1], seed=len(lengths))
        soundfile.write(folder / f"{len(lengths):03}.wav", clip, 16000, subtype="PCM_16")
    return lengths


def run_alone(task: Callable[..., None], *args: Any) -> None:
    """In a process of its own, so that its memory is nobody's."""
    process = multiprocessing.get_context("spawn").Process(target=task, args=args)
    process.start()
    process.join()
    assert process.exitcode == 0, f"{task.__name__} failed"


def make_model(folder: Path, clips: Path) -> None:
    """Save the seeded model and its tokenizer; no special symbol is ever written."""
    import soundfile
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**LARGE)).eval()
    samples = torch.from_numpy(soundfile.read(sorted(clips.iterdir())[0], dtype="float32")[0])[None]
    head = model.lm_head
    with torch.no_grad():
        scores = model((samples - samples.mean()) / samples.std()).logits[0]
        scale = 5 / scores.std(dim=0)
        head.bias.copy_((head.bias - scores.mean(dim=0)) * scale)
        head.weight.mul_(scale[:, None])
        head.bias[1:4] = -1e4
    model.save_pretrained(folder)
    symbols = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyzáâãàçéêíóôõú'-"]
    (folder / "vocab.json").write_text(json.dumps({s: i for i, s in enumerate(symbols)}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Wav2Vec2CTCTokenizer", "pad_token": "<pad>", "unk_token": "<unk>"})
    )
    extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True, "sampling_rate": 16000}
    extractor |= {"return_attention_mask": True, "feature_size": 1, "padding_value": 0.0}
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))


# ---- contenders: each is a process that loads, warms up, and does a batch at each turn ----


def pipeline(link: Connection, folder: Path, threads: int, batch: int) -> None:
    """transformers' pipeline; a batch is padded to its longest clip in the order given."""
    import soundfile
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    pipe = transformers.pipeline("automatic-speech-recognition", model=str(folder / "model"), dtype=torch.float32)
    clips = [soundfile.read(p, dtype="float32")[0] for p in sorted((folder / "clips").iterdir())]

    def transcribe(which: list[np.ndarray]) -> Iterator[Step]:
        total = sum(map(len, which))
        for group in (which[i : i + batch] for i in range(0, len(which), batch)):
            inputs = ({"raw": clip, "sampling_rate": 16000} for clip in group)
            texts = [" ".join(found["text"].split()) for found in pipe(inputs, batch_size=batch)]
            share, padded = sum(map(len, group)) / total, max(map(len, group)) * len(group)
            yield {"texts": texts, "share": share, "padded_s": padded / 16000}

    serve(link, lambda: transcribe(clips), warm=lambda: list(transcribe(clips[:1])))


def ours(link: Connection, folder: Path, threads: int, precision: str, batch_s: float | None) -> None:
    """The worker of asr-transcribe, fed as the job feeds it."""
    from runner.asr import batches, recordings, sizing, windows
    from runner.asr.layout import Layout
    from runner.asr.pieces import Setup, Source
    from runner.asr.transcriber import Transcriber
    from runner.registry.resolve import resolve

    found = resolve(str(folder / "model"), folder=folder)
    rate, stride, receptive = (found.facts[k] for k in ("sample_rate", "stride_samples", "receptive_samples"))
    source = Source(
        folder=str(folder / "model"),
        rate=rate,
        stride=stride,
        receptive=receptive,
        waveform=True,
        normalise=True,
        mask=True,
    )
    worker = Transcriber(
        Setup(
            source=source,
            task="ctc",
            precision=precision,  # type: ignore[arg-type]
            device="cpu",
            threads=threads,
            timestamps="word",
            silence_db=-60.0,
        )
    )
    fitting = sizing.on_cpu() if batch_s is None else sizing.asked(batch_s)
    size = fitting.size(rate=rate, windows=64, packed=True)
    cut = windows.cut(length_s=20, context_s=1, rate=rate, stride=stride, receptive=receptive)

    def transcribe(paths: list[str]) -> Iterator[Step]:
        clips = list(recordings.from_files(paths, folder=folder))
        listed = list(recordings.recordings(clips, channels="mix", rate=rate, receptive=receptive, threads=threads))
        layout = Layout(listed, cut)
        plan = batches.plan(layout.lengths, size)
        for batch in (batch for deal in layout.deals(plan, workers=1, done=lambda *_: False) for batch in deal):
            answer = worker((batch,))
            texts = {outcome.item: outcome.decoded.text for outcome in answer.outcomes if outcome.decoded}
            share = sum(outcome.samples for outcome in answer.outcomes) / int(layout.lengths.sum())
            yield {"texts": texts, "share": share, "padded_s": answer.padded / rate}

    paths = [str(p) for p in sorted((folder / "clips").iterdir())]
    serve(link, lambda: transcribe(paths), warm=lambda: list(transcribe(paths[:1])))


def gemm(link: Connection, threads: int, precision: str, library: str) -> None:
    """The matrix product alone: torch's own, or oneDNN's with the weight in its order."""
    import torch

    torch.set_num_threads(threads)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    rows, inner, outer = GEMM
    x, w = torch.randn(rows, inner, dtype=dtype), torch.randn(outer, inner, dtype=dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(w, None)

    def product() -> None:
        if library == "torch":
            torch.nn.functional.linear(x, w)
        else:
            torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")

    def steps() -> Iterator[Step]:
        for _ in range(10):
            for _ in range(5):
                product()
            yield {"share": 0.1, "gflop": 5 * 2 * rows * inner * outer / 1e9}

    serve(link, steps, warm=product)


def measure(folder: Path, args: argparse.Namespace, lengths: list[float]) -> dict[str, Any]:
    """All contenders in turns, and what follows from it."""
    formats = ["fp32", *(p for p in sorted({format_of(asked) for asked in args.precision}) if p != "fp32")]
    contenders: dict[str, Contender] = {f"pipeline batch {n}": (pipeline, (folder, args.threads, n)) for n in PIPELINES}
    contenders |= {f"ours {p}": (ours, (folder, args.threads, p, args.batch_s)) for p in formats}
    contenders |= {f"gemm {p} {lib}": (gemm, (args.threads, p, lib)) for p in formats for lib in ("torch", "onednn")}
    return summary(race(contenders, rounds=args.rounds), lengths=lengths, flops=flops(lengths), args=args)


def format_of(precision: str) -> str:
    """The number format that a precision asked for means on this CPU."""
    from runner.precision import choose

    return choose(precision, device="cpu").name  # type: ignore[arg-type]


def flops(lengths: list[float]) -> float:
    """Arithmetic of one pass over the clips without padding, counted by torch on shapes alone."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    with torch.device("meta"):
        model = Wav2Vec2ForCTC(Wav2Vec2Config(**LARGE, attn_implementation="sdpa")).eval()
        plain = torch.nn.Conv1d(1024, 1024, 128, padding=64, groups=16)  # weight norm knows no meta tensors
        model.wav2vec2.encoder.pos_conv_embed.conv = plain
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            for seconds in lengths:
                model(torch.empty(1, round(seconds * 16000)))
    return float(counter.get_total_flops())


def summary(
    passes: dict[str, Passes], *, lengths: list[float], flops: float, args: argparse.Namespace
) -> dict[str, Any]:
    """A row for each contender."""
    useful = sum(lengths)
    rates = {n: p.total("gflop") / p.seconds("wall_s") for n, p in passes.items() if n.startswith("gemm")}
    reference = texts(passes["pipeline batch 1"])
    rows = []
    for name, found in passes.items():
        if name in rates:
            continue
        wall = found.seconds("wall_s")
        product = "gemm bf16" if name.endswith("bf16") else "gemm fp32"
        rows.append(
            {
                "contender": name,
                "audio_s_per_s": useful / wall,
                "audio_s_per_cpu_s": useful / found.seconds("cpu_s"),
                "padded_s": found.total("padded_s"),
                "gflops": flops / wall / 1e9,
                "share_of_gemm": flops / wall / 1e9 / max(rate for n, rate in rates.items() if n.startswith(product)),
                "peak_gb": found.peak_gb,
                "loading_peak_gb": found.loading_peak_gb,
                "same_text": sum(a == b for a, b in zip(texts(found), reference, strict=True)),
            }
        )
    packages = {name: version(name) for name in ("torch", "transformers", "numpy", "soundfile")}
    return {
        "clips": len(lengths),
        "useful_s": useful,
        "gflop": flops / 1e9,
        "threads": args.threads,
        "rounds": args.rounds,
        "gemm_gflops": rates,
        "rows": rows,
        "example": reference[0][:60],
        "cpu": _cpu(),
        "python": platform.python_version(),
        "packages": packages,
    }


def texts(passes: Passes) -> list[str]:
    """Of all clips, in their order: steps say theirs as a list in order, or by position."""
    found = [step["texts"] for step in passes.steps[0]]
    if isinstance(found[0], list):
        return [text for some in found for text in some]
    by_position = {at: text for some in found for at, text in some.items()}
    return [by_position[at] for at in sorted(by_position)]


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def print_report(report: dict[str, Any]) -> None:
    """The table, and the ratios that the design asks for."""
    print(f"{report['clips']} clips, {report['useful_s']:.1f} useful seconds, {report['gflop']:.0f} GFLOP")
    print(f"{report['cpu']}, {report['threads']} threads, {report['packages']}, Python {report['python']}")
    print("GEMM:", ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in report["gemm_gflops"].items()))
    print(f"{'':18}{'audio s/s':>10}{'audio s/cpu s':>15}{'padded s':>10}{'of GEMM':>9}{'peak GB':>9}{'same text':>11}")
    for row in report["rows"]:
        print(
            f"{row['contender']:18}{row['audio_s_per_s']:10.2f}{row['audio_s_per_cpu_s']:15.2f}{row['padded_s']:10.1f}"
            f"{row['share_of_gemm']:9.0%}{row['peak_gb']:9.2f}{row['same_text']:>7}/{report['clips']}"
        )
    for line in verdicts(report):
        print(line)
    print(f"a text: {report['example']!r}")


def verdicts(report: dict[str, Any]) -> Iterator[str]:
    """Each target, what was measured, and whether it is reached."""
    rows = {row["contender"]: row for row in report["rows"]}
    best = max((r for n, r in rows.items() if n.startswith("pipeline")), key=lambda r: r["audio_s_per_s"])
    peers = {"the pipeline's best": best, "its batch 8": rows["pipeline batch 8"]}
    for name, peer, target in TARGETS:
        if name not in rows:
            yield f"{name}: not measured, this CPU has no instructions for it (precision auto is fp32 here)"
            continue
        ratio, cpu = (rows[name][key] / peers[peer][key] for key in ("audio_s_per_s", "audio_s_per_cpu_s"))
        verdict = "reached" if ratio >= target else "NOT reached"
        yield f"{name}: {ratio:.2f}x {peer} (by CPU time {cpu:.2f}x), target {target}x: {verdict}"
    same = rows["ours fp32"]["same_text"]
    yield f"ours fp32: {same} of {report['clips']} texts as from the pipeline's batch 1"


if __name__ == "__main__":
    main()
