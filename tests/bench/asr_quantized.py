"""Size and speed of asr-quantize's variants on the wav2vec2-large architecture.

    python -m tests.bench.asr_quantized [--threads 2] [--seconds 60] [--rounds 2] [--race VARIANT ...] [--save FILE]

Seeded weights and clips as in ``asr_large``: sizes and speeds hold for any checkpoint of this shape, texts mean nothing
(how many characters change says only that a variant is at work; errors are measured on trained models, by the job).
Every variant is made and weighed; those in --race run in the worker of asr-transcribe and take turns, batch by batch,
with transformers' pipeline at batch 1, which is the baseline: plain transformers, fp32.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jiwer

from tests.bench import asr_large
from tests.bench.asr_large import make_clips, make_model, ours, pipeline, run_alone, texts
from tests.bench.turns import Contender, Passes, race

BASELINE = "pipeline batch 1"
WEIGHED = (
    *("fp16", "bf16", "int8-dynamic", "int8-static", "int8-weights", "int4-weights"),
    *("onnx-fp32", "onnx-fp16", "onnx-int8"),
)
RACED = ("int8-dynamic", "int8-static", "onnx-fp32", "onnx-int8")  # the others compute as fp32 does
SMALLER = {"int8-dynamic": 3.5, "int8-static": 3.5, "int8-weights": 3.5, "onnx-int8": 3.5, "int4-weights": 6.5}
FASTER, AIM = 2.0, 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0, help="useful audio, at least")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each contender; the best counts")
    parser.add_argument("--race", nargs="+", default=list(RACED), choices=WEIGHED, help="variants to time")
    parser.add_argument("--save", metavar="FILE", help="write the report as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lengths = make_clips(folder / "clips", seconds=args.seconds)
        run_alone(make_model, folder / "model", folder / "clips")
        run_alone(make_variants, folder, args.threads)
        sizes = json.loads((folder / "sizes.json").read_text("utf-8"))
        report = measure(folder, args, lengths, sizes)
    print_report(report)
    if args.save:
        Path(args.save).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def make_variants(folder: Path, threads: int) -> None:
    """Each as ``folder/<name>/model``, the clips beside it; what became of them in sizes.json."""
    from runner.asr import header
    from runner.asr.pieces import Piece, Source
    from runner.asr.quantise.maker import Maker, Making
    from runner.registry.resolve import resolve

    found = resolve(str(folder / "model"), folder=folder)
    rate, stride, receptive = (found.facts[k] for k in ("sample_rate", "stride_samples", "receptive_samples"))
    waveform = {"waveform": True, "normalise": True, "mask": True}
    source = Source(folder=str(folder / "model"), rate=rate, stride=stride, receptive=receptive, **waveform)
    paths = sorted(map(str, (folder / "clips").iterdir()))[:4]
    pieces = [
        Piece(
            item=item, window=0, alone=True, path=path, header=head, channel=None, first=0, last=head.frames,
            keep_from=0, keep_to=None,
        )
        for item, (path, head) in enumerate(zip(paths, header.probe(paths, threads=1), strict=True))
        if isinstance(head, header.Header)
    ]  # fmt: skip
    parameters = int(found.facts["parameters"])
    made = folder / "made"
    maker = Maker(
        Making(source=source, parameters=parameters, threads=threads, group=32, calibration=pieces, folder=made)
    )
    sizes = []
    for name in WEIGHED:
        sizes.append(asdict(maker(name)))
        (folder / name).mkdir()
        (made / name).rename(folder / name / "model")
        (folder / name / "clips").symlink_to(folder / "clips")
    (folder / "sizes.json").write_text(json.dumps(sizes), "utf-8")


def measure(
    folder: Path, args: argparse.Namespace, lengths: list[float], sizes: list[dict[str, Any]]
) -> dict[str, Any]:
    """All contenders in turns."""
    contenders: dict[str, Contender] = {
        BASELINE: (pipeline, (folder, args.threads, 1)),
        "runner fp32": (ours, (folder, args.threads, "fp32", None)),
    }
    contenders |= {name: (ours, (folder / name, args.threads, "fp32", None)) for name in args.race}
    passes = race(contenders, rounds=args.rounds)
    whole = (folder / "model" / "model.safetensors").stat().st_size
    return {
        "useful_s": sum(lengths),
        "clips": len(lengths),
        "threads": args.threads,
        "rounds": args.rounds,
        "cpu": asr_large._cpu(),
        "unquantised_bytes": whole,
        "sizes": [{"variant": s["name"], "bytes": s["bytes"], "smaller": whole / s["bytes"]} for s in sizes],
        "parity": {s["name"]: s["parity"] for s in sizes if s["parity"]},
        "speed": list(_rows(passes, useful=sum(lengths))),
    }


def _rows(passes: dict[str, Passes], *, useful: float) -> Iterator[dict[str, Any]]:
    baseline = passes[BASELINE]
    for name, found in passes.items():
        yield {
            "contender": name,
            "audio_s_per_s": useful / found.seconds("wall_s"),
            "faster": baseline.seconds("wall_s") / found.seconds("wall_s"),
            "faster_by_cpu": baseline.seconds("cpu_s") / found.seconds("cpu_s"),
            "peak_gb": found.peak_gb,
            "characters_changed": float(jiwer.cer(texts(baseline), texts(found))),
        }


def print_report(report: dict[str, Any]) -> None:
    """Both tables and the targets."""
    print(f"{report['clips']} clips, {report['useful_s']:.1f} s, {report['threads']} threads, {report['cpu']}")
    print(f"{'':18}{'MB':>10}{'times smaller':>15}")
    print(f"{'unquantised':18}{report['unquantised_bytes'] / 1e6:10.1f}{1:15.2f}")
    for row in report["sizes"]:
        print(f"{row['variant']:18}{row['bytes'] / 1e6:10.1f}{row['smaller']:15.2f}")
    print(f"{'':18}{'audio s/s':>10}{'times faster':>14}{'by CPU time':>13}{'peak GB':>9}{'characters changed':>20}")
    for row in report["speed"]:
        print(
            f"{row['contender']:18}{row['audio_s_per_s']:10.2f}{row['faster']:14.2f}{row['faster_by_cpu']:13.2f}"
            f"{row['peak_gb']:9.2f}{row['characters_changed']:20.1%}"
        )
    for line in verdicts(report):
        print(line)


def verdicts(report: dict[str, Any]) -> Iterator[str]:
    """Each target, what was measured, and whether it is reached."""
    for row in report["sizes"]:
        if row["variant"] in SMALLER:
            least = SMALLER[row["variant"]]
            said = "reached" if row["smaller"] >= least else "MISSED"
            yield f"{row['variant']}: {row['smaller']:.2f} times smaller, target {least:g}: {said}"
    variants = [row for row in report["speed"] if row["contender"] in WEIGHED]  # runner's own fp32 is none
    best = max(variants, key=lambda row: row["faster"])
    said = "MISSED" if best["faster"] < FASTER else "reached" if best["faster"] < AIM else "reached, and the aim of 3"
    yield f"fastest is {best['contender']}: {best['faster']:.2f} times {BASELINE}, target {FASTER:g}: {said}"


if __name__ == "__main__":
    main()
