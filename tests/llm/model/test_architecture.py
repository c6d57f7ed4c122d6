"""Models from random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.llm.model import architecture
from tests.llm.model import made

SIZES: dict[str, Any] = {
    "hidden": 32,
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "feed_forward": 48,
    "positions": 64,
    "vocabulary": 48,
}


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_same_seed_gives_the_same_folder(family: Any, tied: bool, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        architecture.make(folder, type=family, **SIZES, tied=tied, tokenizer=made.tokenizer(), seed=seed)
    first, second, other = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders)
    assert first == second
    assert first["model.safetensors"] != other["model.safetensors"]
    prepared = made.prepared(folders[0])
    assert prepared.parameters == prepared.trainable
    assert prepared.model.get_input_embeddings().weight.shape == (48, 32)
    assert (prepared.model.lm_head.weight is prepared.model.get_input_embeddings().weight) == tied


def test_a_folder_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    architecture.make(tmp_path / "model", type="llama", **SIZES, tied=True, tokenizer=made.tokenizer(), seed=0)
    assert list((tmp_path / "model").iterdir()) == []
