"""Check specs: every problem of every file with its place and what to do about it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from runner.schema.errors import SpecError
from runner.schema.expand import overrides_of
from runner.schema.load import load


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the words of this verb."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="spec file, folder of specs, or - for stdin")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="value of a variable of `vars:`"
    )
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how to print the problems")


def run(args: argparse.Namespace) -> int:
    """Print `ok: N specs`, or the problems."""
    try:
        loaded = load(args.paths, stdin=sys.stdin, overrides=overrides_of(args.set))
    except SpecError as error:
        _print_problems(error, as_json=args.output == "json")
        return error.exit_code
    if args.output == "json":
        print("[]")
    else:
        print(f"ok: {len(loaded)} spec{'s' if len(loaded) != 1 else ''}")
    return 0


def _print_problems(error: SpecError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([dataclasses.asdict(problem) for problem in error.problems], indent=1))
        return
    files = len({problem.file for problem in error.problems})
    count = len(error.problems)
    print(error, file=sys.stderr)
    where = "" if files == 1 else f" in {files} files"
    print(f"error: {count} problem{'s' if count != 1 else ''}{where}", file=sys.stderr)
