"""The record `inputs.json` of an artifact: every file behind its inputs. The next plan tells from it what changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from runner.plan.reasons import Listing
from runner.store.paths import RECORDS

NAME = "inputs.json"


def write(records: Path, listings: Mapping[str, Listing]) -> None:
    """Write the record into an artifact's folder of records; ``listings`` are (path, digest) by input field."""
    (records / NAME).write_text(json.dumps(listings, ensure_ascii=True, indent=0), encoding="ascii")


def stored(folder: Path) -> dict[str, Listing]:
    """The record of an artifact in ``folder``; empty where there is none or it cannot be read."""
    try:
        data = json.loads((folder / RECORDS / NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return {field: rows for field, rows in data.items() if isinstance(rows, list)} if isinstance(data, dict) else {}
