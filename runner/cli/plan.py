"""Show what apply would do, and why; change nothing."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from runner.plan import saved, text
from runner.plan.build import build
from runner.plan.step import Plan
from runner.schema.errors import UsageError
from runner.schema.expand import overrides_of
from runner.schema.load import load
from runner.store.local import open_store

CHANGES, GATE = 10, 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the words of this verb."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="spec file, folder of specs, or - for stdin")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="value of a variable of `vars:`"
    )
    parser.add_argument(
        "-o",
        "--output",
        default="text",
        metavar="text|json|FILE.json",
        help="how to print the plan, or where to save it for apply",
    )
    parser.add_argument(
        "--exit-code",
        action="store_true",
        help="exit with 10 when apply would change something, with 3 when only gates block",
    )


def run(args: argparse.Namespace) -> int:
    """Print or save the plan."""
    if args.output not in {"text", "json"} and not args.output.endswith(".json"):
        raise UsageError(f"-o {args.output!r} is unknown; allowed are text, json and a file that ends with .json")
    loaded = load(args.paths, stdin=sys.stdin, overrides=overrides_of(args.set))
    plan = build(loaded, open_store(args.store))
    if args.output not in {"text", "json"}:
        saved.save(plan, Path(args.output))
    if args.output == "json":
        print(json.dumps(text.to_json(plan), indent=1, ensure_ascii=False))
    else:
        print("\n".join(text.lines(plan)))
    if args.output not in {"text", "json"}:
        print(f"Saved as {args.output}; `runner apply {args.output}` carries out exactly this.")
    return _code(plan) if args.exit_code else 0


def _code(plan: Plan) -> int:
    if text.changes(plan):
        return CHANGES
    return GATE if any(step.action == "blocked" for step in plan.steps) else 0
