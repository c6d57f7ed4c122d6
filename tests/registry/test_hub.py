from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.registry import hub
from runner.registry.resolve import resolve
from runner.schema.errors import JobError, PlanError
from tests.registry import models
from tests.registry.hub_server import Hub, Repo, serving

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ID = "someone/wav2vec2-tiny"
TOKEN = "hf_secret_of_a_test"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    content = models.files() | {
        "README.md": b"x" * 999,
        "pytorch_model.bin": b"never fetched",
        "language_model/lm.binary": b"x" * 5000,
    }
    with serving(Hub(repos={ID: Repo(commit=COMMIT, files=content)})) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield made


def snapshot_folder(tmp_path: Path) -> Path:
    return tmp_path / "hf" / "hub" / "models--someone--wav2vec2-tiny" / "snapshots" / COMMIT


def test_a_branch_is_pinned_and_facts_come_without_the_weights(server: Hub, tmp_path: Path) -> None:
    server.repos[ID].files["model.safetensors"] = models.safetensors(
        models.TENSORS | {"wav2vec2.big": ("F32", (1000, 1000))}
    )
    found = resolve(ID, folder=tmp_path)
    assert (found.ref, found.commit, found.path) == (f"hf:{ID}@{COMMIT}", COMMIT, None)
    assert found.facts["parameters"] == 6 + 48 + 64 + 1_000_000
    names = [name for name, _ in found.files]
    assert names == ["config.json", "model.safetensors", "preprocessor_config.json", "vocab.json"]
    asked = [wanted for _, path, wanted in server.requests if path.endswith("model.safetensors")]
    assert asked == ["bytes=0-65535"]


def test_a_header_longer_than_the_first_request_takes_a_second(server: Hub, tmp_path: Path) -> None:
    many = {f"wav2vec2.encoder.layers.{n}.some.long.name.of.a.tensor": ("F32", (1,)) for n in range(1000)}
    server.repos[ID].files["model.safetensors"] = models.safetensors(models.TENSORS | many)
    assert resolve(ID, folder=tmp_path).facts["parameters"] == 6 + 48 + 64 + 1000
    assert sum(path.endswith("model.safetensors") for _, path, _ in server.requests) == 2


def test_a_server_that_ignores_ranges_is_understood(server: Hub, tmp_path: Path) -> None:
    server.ignore_ranges = True
    assert resolve(ID, folder=tmp_path).facts["parameters"] == 118


def test_a_snapshot_holds_exactly_the_files_named(server: Hub, tmp_path: Path) -> None:
    said: list[str] = []
    folder = hub.fetch(resolve(ID, folder=tmp_path), say=said.append)
    assert folder == snapshot_folder(tmp_path)
    assert {p.name for p in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "vocab.json",
    }
    assert (folder / "model.safetensors").read_bytes() == server.repos[ID].files["model.safetensors"]
    assert said[-1].startswith("fetching model.safetensors of someone/wav2vec2-tiny")


def test_a_pinned_commit_in_the_cache_needs_no_request_and_no_client(server: Hub, tmp_path: Path) -> None:
    hub.fetch(resolve(ID, folder=tmp_path))
    server.requests.clear()
    code = (
        "import sys; from pathlib import Path; from runner.registry.resolve import resolve; "
        f"r = resolve({ID!r}, revision={COMMIT!r}, folder=Path('.')); "
        "print(r.path, r.facts['parameters'], 'huggingface_hub' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.split() == [str(snapshot_folder(tmp_path)), "118", "False"]
    assert server.requests == []


def test_the_reference_that_a_plan_pinned_resolves_again(server: Hub, tmp_path: Path) -> None:
    first = resolve(ID, folder=tmp_path)
    assert resolve(first.ref, folder=tmp_path).ref == first.ref


def test_a_connection_that_breaks_off_is_taken_up_where_it_broke(server: Hub, tmp_path: Path) -> None:
    server.repos[ID].files["model.safetensors"] = models.safetensors(
        models.TENSORS | {"wav2vec2.big": ("F32", (3000, 1000))}
    )
    found = resolve(ID, folder=tmp_path)
    server.requests.clear()
    server.cut_once["model.safetensors"] = 11_000_000
    folder = hub.fetch(found)
    assert (folder / "model.safetensors").read_bytes() == server.repos[ID].files["model.safetensors"]
    asked = [
        wanted for method, path, wanted in server.requests if method == "GET" and path.endswith("model.safetensors")
    ]
    assert asked == [None, f"bytes={10 * 1024 * 1024}-"]  # huggingface_hub writes parts of 10 MiB


def test_weights_of_another_size_than_listed_are_refused(server: Hub, tmp_path: Path) -> None:
    found = resolve(ID, folder=tmp_path)
    server.repos[ID].files["model.safetensors"] = b"an error page of a proxy"
    with pytest.raises(
        JobError, match=r"'model\.safetensors' of model .* has 24 bytes where the hub lists \d+"
    ) as error:
        hub.fetch(found)
    assert error.value.failure == "ModelInvalid"


def test_a_model_that_went_away_since_the_plan(server: Hub, tmp_path: Path) -> None:
    found = resolve(ID, folder=tmp_path)
    del server.repos[ID]
    with pytest.raises(JobError, match="check owner and name") as error:
        hub.fetch(found)
    assert error.value.failure == "NotFound"


def test_offline_with_the_cache(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.fetch(resolve(ID, folder=tmp_path))
    server.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve(ID, folder=tmp_path).commit == COMMIT  # what main was when it was last seen
    assert resolve(ID, revision=COMMIT, folder=tmp_path).path == str(snapshot_folder(tmp_path))
    with pytest.raises(PlanError, match=r"'other/model' at revision 'main' is not in the cache .*HF_HUB_OFFLINE"):
        resolve("other/model", folder=tmp_path)
    assert server.requests == []


def test_offline_with_half_a_cache_says_which_file_is_missing(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = resolve(ID, folder=tmp_path)  # fetches the small files only
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(JobError, match=r"lacks 'vocab\.json' in the cache") as error:
        hub.fetch(found)
    assert error.value.failure == "NotFound"


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_private_model_needs_the_token(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    server.repos[ID].token = TOKEN
    with pytest.raises(PlanError, match=r"is not on .* or it is private and HF_TOKEN is not set"):
        resolve(ID, revision=revision, folder=tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_another_token")
    with pytest.raises(PlanError, match="or your token may not read it") as error:
        resolve(ID, revision=revision, folder=tmp_path)
    assert "hf_another_token" not in str(error.value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert hub.fetch(resolve(ID, revision=revision, folder=tmp_path)) == snapshot_folder(tmp_path)


def test_errors_are_one_line_that_says_what_to_do(server: Hub, tmp_path: Path) -> None:
    def message(name: str = ID, revision: str = "main") -> str:
        with pytest.raises(PlanError) as error:
            resolve(name, revision=revision, folder=tmp_path)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert f"check owner and name at {server.url}/someone/else" in message("someone/else")
    assert "has no revision 'v9'; give a branch, a tag or a full commit" in message(revision="v9")
    server.repos[ID].gated = True
    assert f"is gated: accept its terms at {server.url}/{ID}" in message()
    server.repos[ID].gated = False
    server.status = 503
    assert f"{server.url} answered 503 for model {ID!r}; try again later" in message()


def test_a_server_that_is_down_or_slow(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.delay_s = 0.4
    monkeypatch.setattr("runner.registry.hub_client.TIMEOUT_S", 0.1)
    with pytest.raises(PlanError, match=f"did not answer in time for model {ID!r}; check the network"):
        resolve(ID, folder=tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PlanError, match=r"http://127\.0\.0\.1:9 cannot be reached \(ConnectError\)"):
        resolve(ID, folder=tmp_path)


def test_a_folder_by_that_name_is_hinted_at(server: Hub, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    with pytest.raises(PlanError, match=r"the folder 'tiny' is here: write '\./tiny' for it"):
        resolve("tiny", folder=tmp_path)


@pytest.mark.parametrize(("name", "beside"), [("clips/a.wav", "./clips"), ("a.wav", "./"), ("x/y/a.bin", "./x/y")])
def test_a_file_by_that_name_is_hinted_at(server: Hub, tmp_path: Path, name: str, beside: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(PlanError) as caught:
        resolve(name, folder=tmp_path)
    said = f"; the file './{name}' is here, but a model is the folder that holds config.json: write {beside!r} for that"
    assert str(caught.value).endswith(said)


def test_own_code_needs_trust_and_a_commit(server: Hub, tmp_path: Path) -> None:
    config = models.WAV2VEC2 | {"auto_map": {"AutoModelForCTC": "modeling.Mine"}}
    server.repos[ID].files |= {"config.json": json.dumps(config).encode(), "modeling.py": b"raise SystemExit('ran')"}
    with pytest.raises(PlanError, match=r"brings its own code \(config\.json: auto_map\).*trust_remote_code"):
        resolve(ID, folder=tmp_path)
    with pytest.raises(PlanError, match=f"model.revision must be a full commit, got 'main'; today it is {COMMIT}"):
        resolve(ID, folder=tmp_path, trust_remote_code=True)
    found = resolve(ID, revision=COMMIT, folder=tmp_path, trust_remote_code=True)
    assert "modeling.py" in dict(found.files)


def test_a_damaged_header_on_the_hub_is_found_before_the_download(server: Hub, tmp_path: Path) -> None:
    server.repos[ID].files["model.safetensors"] = os.urandom(200)
    with pytest.raises(PlanError, match=f"'{ID}/model.safetensors' is no valid safetensors file"):
        resolve(ID, folder=tmp_path)
