"""What the benchmark of variants says of its figures."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench import asr_quantized


def row(contender: str, faster: float) -> dict[str, Any]:
    return {"contender": contender, "faster": faster}


def test_only_a_variant_is_called_the_fastest() -> None:
    speed = [row(asr_quantized.BASELINE, 1.0), row("runner fp32", 2.5), row("onnx-int8", 1.5), row("int8-dynamic", 1.2)]
    (line,) = asr_quantized.verdicts({"sizes": [], "speed": speed})
    assert line == "fastest is onnx-int8: 1.50 times pipeline batch 1, target 2: MISSED"


def test_a_race_needs_a_variant(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["asr_quantized", "--race"])
    with pytest.raises(SystemExit):
        asr_quantized.main()
    assert "--race: expected at least one argument" in capsys.readouterr().err
