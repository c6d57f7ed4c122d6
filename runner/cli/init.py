"""Write a first spec, with every field explained; never overwrites a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from runner.schema.errors import UsageError
from runner.schema.kinds import kinds
from runner.schema.starter import starter
from runner.schema.words import did_you_mean, listing


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the words of this verb."""
    parser.add_argument("kind", nargs="?", metavar="KIND", help=f"kind of job: {listing(kinds())}")
    parser.add_argument("--output", metavar="FILE.yaml", help="where to write it (default: KIND.yaml)")


def run(args: argparse.Namespace) -> int:
    """Write the file and say what to do next."""
    kind = args.kind
    if kind is None:
        raise UsageError(f"name a kind of job: {listing(kinds())}; for example `runner init asr-transcribe`")
    if kind not in kinds():
        near = did_you_mean(kind, kinds())
        raise UsageError(
            f"no kind is called {kind!r}, there is {listing(kinds(), 'and')}" + (f"; {near}" if near else "")
        )
    path = Path(f"{kind}.yaml" if args.output is None else args.output)
    if path.suffix not in {".yaml", ".yml"}:
        raise UsageError(f"--output {args.output!r} is unknown; allowed is a file that ends with .yaml or .yml")
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(starter(kind))
    except FileExistsError:
        raise UsageError(f"{str(path)!r} exists and is left as it is; name another file with --output") from None
    except OSError as error:
        raise UsageError(f"cannot write {str(path)!r}: {error.strerror}") from None
    print(f"wrote {path}; edit it, then `runner validate {path}` and `runner apply {path}`")
    return 0
