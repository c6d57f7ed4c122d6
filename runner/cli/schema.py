"""Write the JSON Schema of specs, for editors, or check that a file holds it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from runner.schema import jsonschema
from runner.schema.errors import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the words of this verb."""
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "-o", "--output", default="json", metavar="json|FILE.json", help="print it, or where to write it"
    )
    target.add_argument("--check", metavar="FILE", help="exit with 1 when FILE is not the current schema")


def run(args: argparse.Namespace) -> int:
    """Write or check."""
    if args.output != "json" and not args.output.endswith(".json"):
        raise UsageError(f"-o {args.output!r} is unknown; allowed are json and a file that ends with .json")
    text = jsonschema.text()
    if args.check:
        return _check(Path(args.check), text)
    if args.output == "json":
        sys.stdout.write(text)
        return 0
    try:
        Path(args.output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {args.output!r}: {error.strerror}") from None
    print(f"wrote {args.output}")
    return 0


def _check(path: Path, text: str) -> int:
    try:
        is_current = path.read_bytes() == text.encode()
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error.strerror}") from None
    if is_current:
        print(f"ok: {path} is the current schema")
        return 0
    print(f"error: {path} is not the current schema; `runner schema -o {path}` writes it", file=sys.stderr)
    return 1
