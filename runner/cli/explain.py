"""Explain a kind or a field: what it means, its type, bounds and default, and whether it decides the result."""

from __future__ import annotations

import argparse
import json

from runner.schema.explain import explain, text


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the words of this verb."""
    parser.add_argument("path", nargs="?", default="", metavar="KIND[.FIELD]", help="left out: the list of kinds")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how to print it")


def run(args: argparse.Namespace) -> int:
    """Print what is known."""
    facts = explain(args.path)
    print(json.dumps(facts, indent=1, ensure_ascii=False) if args.output == "json" else text(facts))
    return 0
