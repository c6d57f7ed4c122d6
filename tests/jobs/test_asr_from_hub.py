"""A transcription whose model lies on a hub: pinned by the plan, fetched by the run, the same texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.helpers import QUICKSTART, clips, manifest, transcribe
from tests.registry.hub_server import Hub, Repo, serving

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # transformers leaves its JSON open

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
ID = "someone/wav2vec2-quickstart"


def test_a_model_from_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    rows = manifest(tmp_path, clips("wav-22k.wav", "flac-16k.flac"))
    files = {path.name: path.read_bytes() for path in (QUICKSTART / "model").iterdir()}
    with serving(Hub(repos={ID: Repo(commit=COMMIT, files=files)})) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        made = transcribe(tmp_path, name="hub", model={"id": ID}, data={"manifest": rows})
    assert made.result.exit_code == 0, made.result.message
    (model,) = [entry for entry in made.manifest["inputs"] if entry["field"] == "model"]
    assert model["ref"] == f"hf:{ID}@{COMMIT}"
    assert model["digest"] == f"commit:{COMMIT}"
    assert made.texts == transcribe(tmp_path, name="folder", data={"manifest": rows}).texts
    assert all(made.texts.values())
