"""`asr-transcribe` on a GPU against itself on the CPU, with the quickstart's model. `pytest -m gpu tests/gpu`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.jobs.helpers import Ran, clips, manifest, transcribe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # transformers leaves its JSON open
]
WINDOW = {"length_s": 5.0, "context_s": 1.0}


def ran(folder: Path, name: str, **fields: Any) -> Ran:
    rows = manifest(folder, clips())
    return transcribe(folder, name=name, data={"manifest": rows}, window=WINDOW, **fields)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_texts_are_those_of_the_cpu(tmp_path: Path, precision: str) -> None:
    on_cpu = ran(tmp_path, "cpu", precision="fp32")
    on_gpu = ran(tmp_path, "gpu", precision=precision, compute={"cpus": 1, "gpus": 1})
    assert on_gpu.texts == on_cpu.texts


def test_the_probe_sizes_the_batches(tmp_path: Path) -> None:
    made = ran(tmp_path, "gpu", compute={"cpus": 1, "gpus": 1})
    assert "MB a second measured" in {line["what"]: line["why"] for line in made.manifest["ledger"]}["batching"]


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Some 300 MB of the GPU."""
    torch.cuda.set_per_process_memory_fraction(0.3e9 / torch.cuda.get_device_properties(0).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("little_memory")
def test_out_of_memory_halves_the_batch_and_changes_no_text(tmp_path: Path) -> None:
    made = ran(tmp_path, "gpu", precision="fp32", compute={"cpus": 1, "gpus": 1}, batch={"seconds": 2000, "files": 512})
    assert made.texts == ran(tmp_path, "cpu", precision="fp32").texts
    assert any(line["what"] == "batch halving" for line in made.manifest["ledger"])
