"""A graph that says something else than torch is not kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.asr.acoustic import features_of, fold_weight_norm, load_whole
from runner.asr.quantise import runtime
from runner.asr.quantise.export import examples, export
from runner.schema.errors import JobError
from tests.asr.variants.test_variants import QUICKSTART, source


def test_a_graph_that_differs_from_torch_is_refused(tmp_path: Path) -> None:
    model = load_whole(source(QUICKSTART)).eval()
    fold_weight_norm(model)
    model.config.save_pretrained(tmp_path)
    shapes = examples(features_of(source(QUICKSTART)), rate=16_000)
    assert len({tuple(one.shape) for one in shapes}) == 3
    made = export(model, shapes[0])
    with pytest.raises(JobError, match="cannot be exported faithfully") as caught:
        runtime.write(made, model, tmp_path, shapes=shapes, most=0.0)
    assert caught.value.failure == "ModelInvalid"
