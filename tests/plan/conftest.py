"""What the tests of the plan share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plan.house import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Specs, a model, two clips and an empty store."""
    return House(tmp_path)
