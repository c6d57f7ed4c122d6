"""Carry specs or a saved plan out; what is there already is not made again."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from runner.execution.results import StepResult, exit_code, nothing_to_do
from runner.plan import saved, text
from runner.plan.build import build
from runner.plan.step import Plan
from runner.report.text import duration, telling
from runner.schema.errors import UsageError
from runner.schema.expand import overrides_of
from runner.schema.load import load
from runner.store.local import Store, open_store

SHOWN_METRICS = 8


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the words of this verb."""
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="spec file, folder of specs, saved plan (.json), or - for stdin"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="value of a variable of `vars:`"
    )
    parser.add_argument("--local", action="store_true", help="run in this process instead of on ray, for debugging")
    parser.add_argument("--address", help="ray cluster to join (default: RAY_ADDRESS; else ray is started here)")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text", help="how to print the result")


def run(args: argparse.Namespace) -> int:
    """Plan, show the plan, carry it out, show what became of it."""
    if args.local and args.address:
        raise UsageError("--local and --address exclude each other: one runs here, the other on a cluster")
    store = open_store(args.store)
    plan = _plan(args, store)
    quiet = args.output == "json"
    results = nothing_to_do(plan, store)
    if results is None:
        results = _carry_out(args, plan, store, quiet=quiet)
    elif not quiet and exit_code(results) == 0:
        count = f"{len(results)} artifact{'' if len(results) == 1 else 's'}"
        print(f"nothing to do: {count} up to date in {plan.store}")
        return 0
    code = exit_code(results)
    if quiet:
        print(json.dumps({"exit_code": code, "steps": [_json(r) for r in results]}, indent=1, ensure_ascii=False))
    else:
        _show(results)
    return code


def _plan(args: argparse.Namespace, store: Store) -> Plan:
    plans = [path for path in args.paths if saved.is_saved(path)]
    if not plans:
        return build(load(args.paths, stdin=sys.stdin, overrides=overrides_of(args.set)), store)
    if len(args.paths) > 1 or args.set:
        raise UsageError(f"a saved plan is applied alone and as it is, got {plans[0]!r} with other words")
    return saved.load_saved(Path(plans[0]), store)


def _carry_out(args: argparse.Namespace, plan: Plan, store: Store, *, quiet: bool) -> tuple[StepResult, ...]:
    # 0.15 CPU-s that an apply with nothing to do need not spend
    from runner.execution import choose  # noqa: PLC0415
    from runner.execution.carry import carry_out  # noqa: PLC0415
    from runner.ui import progress  # noqa: PLC0415

    if not quiet:
        print("\n".join(text.lines(plan)), flush=True)
    # ray's threads print on sys.stdout whatever it is told (2.60): a worker that died, for one
    with _screen() as screen, contextlib.redirect_stdout(sys.stderr):
        shown = progress.choose(screen, silent=quiet)
        make = choose.executor(local=args.local, address=args.address, say=shown.say)
        here = args.local or choose.address_of(args.address) is None
        return carry_out(plan, store, make_executor=make, here=here, progress=shown)


def _screen() -> TextIO:
    """Standard output by another descriptor: a job's own output goes to its log even when it runs in this process."""
    try:
        descriptor = os.dup(sys.stdout.fileno())
    except io.UnsupportedOperation:  # not a real file, as in tests
        return io.StringIO()
    return os.fdopen(descriptor, "w", encoding=sys.stdout.encoding, errors="backslashreplace")


def _json(result: StepResult) -> dict[str, Any]:
    return asdict(result)


def _show(results: Sequence[StepResult]) -> None:
    width = max(len(r.name) for r in results)
    print()
    for result in results:
        what = result.artifact or result.failure or ""
        took = "" if result.seconds is None else duration(result.seconds)
        tries = f"{result.attempts} attempts" if result.seconds is not None and result.attempts > 1 else ""
        parts = filter(None, (what, took, tries))
        print(f"{result.name:<{width}}  {result.action:<11}  {', '.join(parts)}".rstrip())
        if result.message:
            print(f"{'':<{width}}  {result.message}")
        if result.action in {"created", "quarantined"}:
            print(f"{'':<{width}}  {_metrics(result)}")
            print(f"{'':<{width}}  {Path(result.folder or '') / 'report.html'}")
        elif result.exit_code and result.run:
            print(f"{'':<{width}}  `runner logs {result.run}` shows its log")


def _metrics(result: StepResult) -> str:
    """The figures with gates first."""
    gated = [str(gate["name"])[4:] for gate in result.gates]
    names = [name for name in dict.fromkeys([*gated, *telling(result.metrics)]) if name in result.metrics]
    return ", ".join(f"{name} {result.metrics[name]:.4g}" for name in names[:SHOWN_METRICS])
