"""Explain a kind or a field: what it means, its type, bounds and default, and whether it decides the result."""

from __future__ import annotations

import argparse
import json
import os
import sys

from runner.schema.errors import UsageError
from runner.schema.explain import explain, text
from runner.schema.load import load
from runner.store.local import open_store

DATA = "data"  # no kind: kinds have a domain before a dash
SAMPLES = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the words of this verb."""
    parser.add_argument(
        "path", nargs="?", default="", metavar="KIND[.FIELD]|data", help="left out: the list of kinds; data: see SPEC"
    )
    parser.add_argument(
        "spec", nargs="?", metavar="SPEC", help="with data: the spec whose first samples are shown as a model sees them"
    )
    parser.add_argument("--samples", type=int, default=SAMPLES, metavar="N", help="of each corpus (default: 3)")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how to print it")


def run(args: argparse.Namespace) -> int:
    """Print what is known."""
    if args.path == DATA:
        return _data(args)
    if args.spec is not None:
        raise UsageError(f"{args.spec!r} is one word too many; `runner explain data SPEC` shows the data of a spec")
    facts = explain(args.path)
    print(json.dumps(facts, indent=1, ensure_ascii=False) if args.output == "json" else text(facts))
    return 0


def _data(args: argparse.Namespace) -> int:
    if args.spec is None:
        raise UsageError("`runner explain data` needs a spec: runner explain data SPEC")
    if not 1 <= args.samples <= 1000:
        raise UsageError(f"--samples {args.samples} is out of range; allowed are 1 to 1000")
    # only here: it takes 0.1 CPU-s to import, which the other words of this verb need not spend
    from runner.execution.preview import previews  # noqa: PLC0415

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    shown = previews(load([args.spec], stdin=sys.stdin), open_store(args.store), samples=args.samples, say=say)
    if not shown:
        raise UsageError(f"no spec of {args.spec!r} learns from text; `runner explain data` is for llm-train")
    if args.output == "json":
        print(json.dumps([one.to_json() for one in shown], indent=1, ensure_ascii=False))
        return 0
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print("\n\n".join("\n".join(one.lines(colour=colour)) for one in shown))
    return 0
