"""Say what this machine has, what each kind of job lacks on it, and the command that mends it."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from runner.plan.capacity import local_capacity
from runner.registry import hub_place
from runner.report import machine
from runner.schema import discover
from runner.schema.words import size


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the words of this verb."""
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how to print it")


def run(args: argparse.Namespace) -> int:
    """Print what was found; always 0, for nothing was asked to be done."""
    node = local_capacity().nodes[0]
    kinds = discover.names("runner.schema.jobs")
    facts = machine.look(store=args.store, cpus=node.cpus, memory_gb=node.memory_gb, kinds=kinds)
    # whether there is a token, never the token
    facts["hub"] = {
        "endpoint": hub_place.endpoint(),
        "cache": str(hub_place.cache()),
        "offline": hub_place.offline(),
        "token": bool(os.environ.get("HF_TOKEN")),
    }
    print(json.dumps(facts, indent=1) if args.output == "json" else "\n".join(_lines(facts)))
    return 0


def _lines(facts: dict[str, Any]) -> list[str]:
    cpu, store, there = facts["cpu"], facts["store"], facts["hub"]
    bf16 = "bf16 in hardware" if cpu["bf16"] else "no bf16 in hardware: precision auto is fp32"
    free = f", {size(store['free_bytes'])} free" if store["free_bytes"] is not None else ""
    state = {True: "writable", False: "not writable", None: "remote, not looked at"}[store["writable"]]
    gpus = [f"{gpu['name']}, {gpu['memory_mib']} MiB, driver {gpu['driver']}" for gpu in facts["gpus"]]
    ray = "installed" if facts["ray"]["installed"] else "not installed: jobs run in this process (--local)"
    rows = [
        ("python", f"{facts['python']['version']} ({facts['python']['executable']}), {facts['python']['platform']}"),
        ("cpu", f"{cpu['count']} cores, {' '.join(cpu['flags']) or 'flags not known'}; {bf16}"),
        ("memory", f"{facts['memory_gb']:g} GB"),
        *(("gpu", text) for text in gpus or ["none"]),
        *(("program", f"{name}: {path or 'not found'}") for name, path in facts["programs"].items()),
        ("ray", ray + (f", cluster {facts['ray']['address']}" if facts["ray"]["address"] else "")),
        ("store", f"{store['path']}: {state}{free}"),
        ("hub", f"{there['endpoint']}, cache {there['cache']}" + (", offline" if there["offline"] else "")),
    ]
    for package in facts["packages"]:
        extra = f" [{package['extra']}]" if package["extra"] else ""
        rows.append(("package", f"{package['name']} {package['version'] or 'not installed'}{extra}"))
    for kind in facts["kinds"]:
        lacks = f"lacks {', '.join(kind['lacks'])}; {kind['fix']}"
        rows.append(("kind", f"{kind['kind']}: {'ready' if kind['ready'] else lacks}"))
    lines = [f"{name:<8} {text}" for name, text in rows]
    lines += [f"problem  {problem['what']}\n         fix: {problem['fix']}" for problem in facts["problems"]]
    return lines if facts["problems"] else [*lines, "No problems found."]
