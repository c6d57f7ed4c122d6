"""Turn declarative job specs into versioned, verified artifacts."""

# Finds the verb, runs it, turns errors into one line and an exit code; the docstring is the help text.

from __future__ import annotations

import argparse
import ast
import codecs
import gc
import io
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from runner import __version__
from runner.schema import discover
from runner.schema.errors import UsageError, UserError

PACKAGE = "runner.cli"
ESCAPED = "runner-escaped"  # name of our handler of encoding errors
EPILOG = "Exit codes: 0 done or nothing to do, 1 a job failed, 2 invalid spec or usage, 3 a gate was not met, "
EPILOG += "4 resources can't be had, 5 conflict, 10 changes are pending (plan --exit-code), 130 interrupted."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")  # its search through all installed packages: 0.03 CPU-s
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # tests may put another kind there
            stream.reconfigure(errors=ESCAPED)
    words = list(sys.argv[1:] if argv is None else argv)
    verbs = [name for name in discover.names(PACKAGE) if name != "main"]
    try:
        return _run(words, verbs)
    except UserError as error:
        print(_told(error), file=sys.stderr)
        if "--debug" in words:
            traceback.print_exc()
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader went away (`runner runs | head`): nothing more can be said, and Python must not try at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        print(f"error: {type(error).__name__}: {error}; this is a bug in runner, --debug shows where", file=sys.stderr)
        if "--debug" in words:
            traceback.print_exc()
        return 1


def _run(words: list[str], verbs: list[str]) -> int:
    verb = next((w for w, before in zip(words, ["", *words], strict=False) if _may_be_a_verb(w, before)), None)
    if verb is None or verb not in verbs:
        _top(verbs).parse_args(words)  # prints help, the version, or the list of verbs, and exits
        raise UsageError(f"{words!r} names no verb. Verbs: {', '.join(verbs)}")
    module = _loaded(verb)
    parser = argparse.ArgumentParser(
        prog=f"runner {verb}", description=_summary(verb), epilog=EPILOG, allow_abbrev=False
    )
    parser.add_argument("--debug", action="store_true", help="show a trace when something goes wrong")
    parser.add_argument(
        "--store",
        default=os.environ.get("RUNNER_STORE") or "artifacts",
        help="artifact store (default: RUNNER_STORE or ./artifacts)",
    )
    module.configure(parser)
    words.remove(verb)
    code: int = module.run(parser.parse_args(words))
    return code


def _loaded(verb: str) -> ModuleType:
    gc.disable()  # loading makes many objects and keeps them all: to look for cycles among them costs 0.07 CPU-s
    try:
        return discover.load(PACKAGE, verb)
    finally:
        gc.enable()  # a job that runs in this process makes cycles, and they may hold tensors


def _may_be_a_verb(word: str, before: str) -> bool:
    return not word.startswith("-") and before != "--store"  # `runner --store DIR plan`: options may come first


def _told(error: UserError) -> str:
    problems = str(error).splitlines()
    return f"error: {error}" if len(problems) == 1 else "\n".join([*problems, f"error: {len(problems)} problems"])


def _top(verbs: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runner", description=__doc__, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"runner {__version__}")
    sub = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in verbs:
        sub.add_parser(verb, help=_summary(verb))
    return parser


def _summary(verb: str) -> str:
    # the first line of the verb's docstring, read without importing it: importing all of them costs 0.3 CPU-s
    text = Path(__file__).with_name(verb.replace("-", "_") + ".py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """What a stream's encoding lacks, as JSON escapes it: Python's `backslashreplace` writes \\xe9, no JSON."""
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(ESCAPED, _escaped)

if __name__ == "__main__":
    sys.exit(main())
