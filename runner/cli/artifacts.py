"""List, show, copy out, verify, compare and clean up artifacts."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runner.report import terminal
from runner.report.text import moment, telling, value
from runner.schema.errors import StoreError, UsageError
from runner.schema.words import size
from runner.store import paths
from runner.store.diff import differences
from runner.store.export import copy_out
from runner.store.gc import Collected, collect
from runner.store.local import Store, open_store
from runner.store.manifest import Manifest
from runner.store.verify import verify

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the words of this verb."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    ls = _action(actions, "ls", _ls, "list names and their latest version; with NAME all of its versions")
    ls.add_argument("name", nargs="?", metavar="NAME")
    show = _action(actions, "show", _show, "show what an artifact is and what made it")
    show.add_argument("artifact", metavar="NAME[@vN]")
    get = _action(actions, "get", _get, "copy files out, verified on the way")
    get.add_argument("artifact", metavar="NAME[@vN][#PATH]", help="PATH: a file or folder of it; left out: all files")
    get.add_argument("--to", required=True, metavar="DIR", help="folder to copy into")
    get.add_argument("--force", action="store_true", help="replace files that exist")
    check = _action(actions, "verify", _verify, "hash files again, down to what they were made from; 1 on damage")
    check.add_argument("artifact", nargs="?", metavar="NAME[@vN]")
    check.add_argument("--all", action="store_true", help="everything in the store")
    diff = _action(actions, "diff", _diff, "compare two artifacts: spec, inputs, metrics, files, environment")
    diff.add_argument("before", metavar="NAME[@vN]")
    diff.add_argument("after", metavar="NAME[@vN]")
    gc = _action(actions, "gc", _gc, "show what can be deleted; with --delete do it")
    gc.add_argument("--delete", action="store_true", help="move it to the store's .trash, empty what is old in there")
    gc.add_argument(
        "--grace", default="1h", metavar="TIME", help="how long things stay in .trash: 30m, 1h, 0s (default: 1h)"
    )
    gc.add_argument(
        "--keep-versions",
        type=int,
        metavar="N",
        help="let go of versions but the newest N, the latest and those used by kept ones",
    )


def _action(
    actions: Any, name: str, act: Callable[[Store, argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(act=act)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how to print (default: text)")
    # also given before the action; SUPPRESS keeps what was said there
    parser.add_argument(
        "--store", default=argparse.SUPPRESS, help="artifact store (default: RUNNER_STORE or ./artifacts)"
    )
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry one action out."""
    act: Callable[[Store, argparse.Namespace], int] = args.act
    return act(open_store(args.store), args)


def _ls(store: Store, args: argparse.Namespace) -> int:
    if args.name is None:
        found = [m for name in store.names() if (m := store.latest(name))]
    else:
        found = [m for v in store.versions(args.name) if (m := store.manifest(args.name, v))]
        if not found:
            raise UsageError(f"there is no artifact {args.name!r}; `runner artifacts ls` lists what there is")
    if args.output == "json":
        return _print_json([_row(m) for m in found])
    if not found:
        print(f"No artifacts in {store.root}; `runner apply SPEC` makes one.")
        return 0
    rows = [(m.name, m.version, m.kind, moment(_created(m)), size(_bytes(m)), _short(m.metrics)) for m in found]
    print("\n".join(terminal.grid([("NAME", "VERSION", "KIND", "CREATED", "SIZE", "METRICS"), *rows])))
    return 0


def _row(manifest: Manifest) -> dict[str, Any]:
    keys = ("name", "version", "kind", "fingerprint", "digest", "metrics", "linked_from")
    row = {key: getattr(manifest, key) for key in keys}
    return {**row, "created": _created(manifest), "files": len(manifest.files), "size": _bytes(manifest)}


def _created(manifest: Manifest) -> str:
    return str(manifest.run.get("ended", ""))


def _bytes(manifest: Manifest) -> int:
    return sum(f.size for f in (*manifest.files, *manifest.records))


def _short(metrics: dict[str, Any]) -> str:
    return value({name: metrics[name] for name in telling(metrics)[:4]})


def _show(store: Store, args: argparse.Namespace) -> int:
    manifest = _find(store, args.artifact)
    if args.output == "json":
        return _print_json(manifest.to_json())
    print(f"{store.folder(manifest)}\n{_shown(manifest, store.folder(manifest))}", end="")
    return 0


def _shown(manifest: Manifest, folder: Path) -> str:
    path = folder / "report.json"
    try:
        return terminal.show(manifest.to_json(), json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        told = f"{type(error).__name__}: {error}"
        raise StoreError(f"{str(path)!r} can't be read: {told}; `runner artifacts verify` tells more") from error


def _get(store: Store, args: argparse.Namespace) -> int:
    path = paths.reference(args.artifact).path
    manifest = _find(store, args.artifact, whole=True)
    copies = copy_out(store, manifest, path=path, to=Path(args.to), force=args.force)
    if args.output == "json":
        return _print_json([str(copy) for copy in copies])
    print("\n".join(terminal.line(str(copy)) for copy in copies))
    return 0


def _verify(store: Store, args: argparse.Namespace) -> int:
    if (args.artifact is None) != args.all:
        raise UsageError("give one artifact, NAME or NAME@vN, or --all")
    found = verify(store, args.artifact)
    if args.output == "json":
        return _print_json(asdict(found)) or int(bool(found.damage))
    for damage in found.damage:
        print(terminal.line(str(damage)))
    for base in found.bases:
        print(f"{base.artifact} was made from {base.field} {base.ref} ({base.digest}): on record, not in the store")
    told = f"{len(found.damage)} damaged" if found.damage else "all as their manifests say"
    print(f"{len(found.artifacts)} artifacts, {found.files:,} files, {size(found.size)}: {told}")
    return 1 if found.damage else 0


def _diff(store: Store, args: argparse.Namespace) -> int:
    found = differences(_find(store, args.before), _find(store, args.after))
    if args.output == "json":
        return _print_json(found)
    for section, changes in found.items():
        print(f"{section}: {'no difference' if not changes else ''}".rstrip())
        for key, (before, after) in changes.items():
            print(terminal.line(f"  {key}: {_side(before)} -> {_side(after)}"))
    return 0


def _side(thing: Any) -> str:
    return "(none)" if thing is None else value(thing)


def _gc(store: Store, args: argparse.Namespace) -> int:
    if args.keep_versions is not None and args.keep_versions < 1:
        raise UsageError(f"--keep-versions {args.keep_versions} is not allowed; keep at least 1")
    found = collect(store, delete=args.delete, grace_s=_seconds(args.grace), keep_versions=args.keep_versions)
    if args.output == "json":
        return _print_json(asdict(found))
    if found.garbage:
        print("\n".join(terminal.grid([("SIZE", "THINGS", "WHY", "WHICH"), *_heaps(found)])))
    print(_told(found, args.grace))
    return 0


def _heaps(found: Collected) -> Iterator[tuple[str, ...]]:
    for why in dict.fromkeys(g.why for g in found.garbage):
        heap = [g for g in found.garbage if g.why == why]
        more = f" and {len(heap) - 3:,} more (-o json names all)" if len(heap) > 3 else ""
        yield size(sum(g.size for g in heap)), f"{len(heap):,}", why, ", ".join(g.path for g in heap[:3]) + more


def _told(found: Collected, grace: str) -> str:
    if not found.deleted:
        if not found.garbage and not found.waiting:
            return "Nothing to delete."
        can = f"{size(found.freed)} can be freed; {size(found.waiting)} lie in .trash. "
        return can + "Nothing was deleted: --delete does it."
    waits = f"; {size(found.waiting)} wait in .trash for {grace} (--grace 0s empties it now)" if found.waiting else ""
    return f"{size(found.freed)} freed{waits}"


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if not found:
        raise UsageError(f"--grace {text!r} is no time; write a whole number and s, m, h or d, for example 30m")
    return int(found[1]) * SECONDS[found[2]]


def _find(store: Store, text: str, *, whole: bool = False) -> Manifest:
    """The manifest of ``NAME[@vN]``; with ``whole`` its files must all be there in full."""
    reference = paths.reference(text)
    if reference.path is not None and not whole:
        raise UsageError(f"{text!r}: '#{reference.path}' has no meaning here; `runner artifacts get` copies a path out")
    look = store.get if whole else store.manifest
    manifest = look(reference.name, reference.version)
    if manifest is None:
        raise UsageError(
            f"there is no artifact {text!r} in {str(store.root)!r}; `runner artifacts ls` lists what there is"
        )
    return manifest


def _print_json(data: Any) -> int:
    json.dump(data, sys.stdout, indent=1, ensure_ascii=False)
    print()
    return 0
