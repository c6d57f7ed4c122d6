"""Speed of asr-transcribe's worker against transformers' pipeline on the wav2vec2-large architecture.

    python -m tests.bench.asr_large [--threads 2] [--seconds 60] [--rounds 3] [--save FILE]

Seeded weights, so the figures hold for any checkpoint of this shape while the texts mean nothing; the output layer is
scaled until they change with the sound. Each contender is a process of its own with the same clips and threads. They
take turns, so that a busy machine is busy for all; the best turn counts. Loading and one warm-up clip are not timed;
ours is timed with decoding files and making words, the pipeline is handed samples in memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

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
    parser.add_argument("--seconds", type=float, default=60.0, help="useful audio, at least")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender; the best counts")
    parser.add_argument("--precision", nargs="*", default=["fp32"], help="ours, e.g. fp32 auto")
    parser.add_argument("--batch-s", type=float, default=None, help="ours: seconds in one batch")
    parser.add_argument("--save", metavar="FILE", help="write the report as JSON")
    return parser.parse_args()


def make_clips(folder: Path, *, seconds: float) -> list[float]:
    """Clips of 1.5 to 12 s as 16-bit wav at 16 kHz, seeded. Their lengths in seconds."""
    import soundfile

    from tests.asr.tiny import sound

    folder.mkdir(parents=True)
    random = np.random.default_rng(7)
    lengths: list[float] = []
    while sum(lengths) < seconds:
        lengths.append(round(float(random.uniform(1.5, 12.0)), 2))
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


# ---- contenders: each is a process that loads, warms up, and transcribes all clips at each "go" ----


def pipeline(link: Connection, folder: Path, threads: int, batch: int) -> None:
    """transformers' pipeline; a batch is padded to its longest clip in the order given."""
    import soundfile
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    pipe = transformers.pipeline("automatic-speech-recognition", model=str(folder / "model"), dtype=torch.float32)
    clips = [soundfile.read(p, dtype="float32")[0] for p in sorted((folder / "clips").iterdir())]

    def transcribe(which: list[np.ndarray]) -> dict[str, Any]:
        inputs = ({"raw": clip, "sampling_rate": 16000} for clip in which)
        padded = sum(max(map(len, group)) * len(group) for group in _groups(which, batch))
        texts = [found["text"] for found in pipe(inputs, batch_size=batch)]
        return {"texts": [" ".join(t.split()) for t in texts], "padded_s": padded / 16000}

    _serve(link, lambda: transcribe(clips), warm=lambda: transcribe(clips[:1]))


def _groups(clips: list[np.ndarray], size: int) -> list[list[np.ndarray]]:
    return [clips[i : i + size] for i in range(0, len(clips), size)]


def ours(link: Connection, folder: Path, threads: int, precision: str, batch_s: float | None) -> None:
    """The worker of asr-transcribe, fed as the job feeds it."""
    from runner.asr import batches, recordings, windows
    from runner.asr.layout import Layout
    from runner.asr.pieces import Setup, Source
    from runner.asr.sizing import sizing
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
            beam_size=1,
            timestamps="word",
            silence_db=-60.0,
            language=None,
        )
    )
    size = sizing(batch_s, device="cpu", memory_bytes=None, facts=found.facts).size(rate=rate, windows=64)
    cut = windows.cut(length_s=20, context_s=1, rate=rate, stride=stride, receptive=receptive)

    def transcribe(paths: list[str]) -> dict[str, Any]:
        clips = list(recordings.from_files(paths, folder=folder))
        listed = list(recordings.recordings(clips, channels="mix", rate=rate, receptive=receptive, threads=threads))
        layout = Layout(listed, cut)
        plan = batches.plan(layout.lengths, size)
        texts, padded = [""] * len(paths), 0
        for deal in layout.deals(plan, workers=1, done=lambda *_: False):
            answer = worker(deal)
            padded += answer.padded
            for outcome in answer.outcomes:
                assert outcome.decoded is not None, outcome
                texts[outcome.item] = outcome.decoded.text
        return {"texts": texts, "padded_s": padded / rate}

    paths = [str(p) for p in sorted((folder / "clips").iterdir())]
    _serve(link, lambda: transcribe(paths), warm=lambda: transcribe(paths[:1]))


def gemm(link: Connection, threads: int, precision: str) -> None:
    """The rate of the matrix product alone, GFLOP/s."""
    import torch

    torch.set_num_threads(threads)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    rows, inner, outer = GEMM
    x, w = torch.randn(rows, inner, dtype=dtype), torch.randn(outer, inner, dtype=dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(w, None)
    products: dict[str, Callable[[], Any]] = {
        "mkl": lambda: torch.nn.functional.linear(x, w),
        "onednn": lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""),
    }

    def rate() -> dict[str, Any]:
        found = {}
        for name, product in products.items():
            took = []
            for _ in range(20):
                began = time.perf_counter()
                product()
                took.append(time.perf_counter() - began)
            found[name] = 2 * rows * inner * outer / min(took) / 1e9
        return {"gflops": max(found.values()), **found}

    _serve(link, rate, warm=rate)


def _serve(link: Connection, work: Callable[[], dict[str, Any]], *, warm: Callable[[], Any]) -> None:
    warm()
    link.send("ready")
    while link.recv() == "go":
        began, cpu = time.perf_counter(), time.process_time()
        done = work()
        done |= {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
        done["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        link.send(done)


def measure(folder: Path, args: argparse.Namespace, lengths: list[float]) -> dict[str, Any]:
    """All contenders in turns; for each the best turn."""
    arithmetic = flops(lengths)
    model = (folder, args.threads)
    tasks: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {
        f"pipeline batch {size}": (pipeline, (*model, size)) for size in PIPELINES
    }
    tasks |= {f"ours {p}": (ours, (*model, p, args.batch_s)) for p in args.precision}
    tasks |= {"gemm fp32": (gemm, (args.threads, "fp32"))}
    if any(p != "fp32" for p in args.precision):
        tasks["gemm bf16"] = (gemm, (args.threads, "bf16"))
    context = multiprocessing.get_context("spawn")
    links, processes = {}, []
    for name, (task, inputs) in tasks.items():
        links[name], theirs = context.Pipe()
        process = context.Process(target=task, args=(theirs, *inputs), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        assert links[name].recv() == "ready"
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in tasks}
    for number in range(args.rounds):
        for name, link in links.items():
            link.send("go")
            turns[name].append(link.recv())
            print(f"round {number + 1}: {name}: {turns[name][-1]['wall_s']:.1f} s", file=sys.stderr, flush=True)
    for link in links.values():
        link.send("stop")
    for process in processes:
        process.join()
    return summary(turns, lengths=lengths, flops=arithmetic, args=args)


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
    turns: dict[str, list[dict[str, Any]]], *, lengths: list[float], flops: float, args: argparse.Namespace
) -> dict[str, Any]:
    """The best turn of each, and what follows from it."""
    useful = sum(lengths)
    best = {name: min(found, key=lambda turn: turn["wall_s"]) for name, found in turns.items()}
    rates = {name: max(turn["gflops"] for turn in turns[name]) for name in turns if name.startswith("gemm")}
    reference = best["pipeline batch 1"]["texts"]
    rows = []
    for name, turn in best.items():
        if name in rates:
            continue
        least_cpu = min(t["cpu_s"] for t in turns[name])
        rows.append(
            {
                "contender": name,
                "audio_s_per_s": useful / turn["wall_s"],
                "audio_s_per_cpu_s": useful / least_cpu,
                "padded_s": turn["padded_s"],
                "gflops": flops / turn["wall_s"] / 1e9,
                "share_of_fp32_gemm": flops / turn["wall_s"] / 1e9 / rates["gemm fp32"],
                "peak_gb": turn["peak_gb"],
                "same_text": sum(a == b for a, b in zip(turn["texts"], reference, strict=True)),
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
            f"{row['share_of_fp32_gemm']:9.0%}{row['peak_gb']:9.2f}{row['same_text']:>7}/{report['clips']}"
        )
    rows = {row["contender"]: row for row in report["rows"]}
    best = max((r for n, r in rows.items() if n.startswith("pipeline")), key=lambda r: r["audio_s_per_s"])
    for name, row in rows.items():
        if name.startswith("ours"):
            for key in ("audio_s_per_s", "audio_s_per_cpu_s"):
                over_best, over_8 = row[key] / best[key], row[key] / rows["pipeline batch 8"][key]
                print(f"{name}: {over_best:.2f}x the pipeline's best, {over_8:.2f}x its batch 8 ({key})")
    print(f"a text: {report['example']!r}")


if __name__ == "__main__":
    main()
