from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.registry import dataset, hub
from runner.registry.dataset import Dataset
from runner.schema.errors import JobError, PlanError
from tests.registry.hub_server import Hub, Repo, serving

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEXT = "89abcdef0123456789abcdef0123456789abcdef"
NAME = "someone/chats"
SOURCE = f"hf:{NAME}"
FILES = {
    "README.md": b"---\n",
    "dataset_infos.json": b"{}",
    "data/train-00000-of-00002.jsonl": b'{"text": "a"}\n',
    "data/train-00001-of-00002.jsonl": b'{"text": "b"}\n',
    "data/test-00000-of-00001.jsonl": b'{"text": "c"}\n',
}
TRAIN = ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"]
TOKEN = "hf_secret_of_a_test"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    repo = Repo(commit=COMMIT, files=dict(FILES), branches=("main", "v1"))
    with serving(Hub(repos={f"datasets/{NAME}": repo})) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield made


def names(found: Dataset) -> list[str]:
    return [path for path, _ in found.files]


def fetched(found: Dataset) -> Path:
    return hub.snapshot(found.repo, commit=found.commit, files=found.files, kind="dataset")


def test_a_branch_is_pinned_and_only_the_files_of_the_split_are_fetched(server: Hub, tmp_path: Path) -> None:
    found = dataset.resolve(SOURCE, revision="v1")
    assert (found.ref, found.digest, names(found)) == (f"{SOURCE}@{COMMIT}", f"commit:{COMMIT}", TRAIN)
    assert [path for _, path, _ in server.requests if "someone" in path] == [f"api/datasets/{NAME}/revision/v1"]
    folder = fetched(found)
    assert folder == tmp_path / "hf" / "hub" / "datasets--someone--chats" / "snapshots" / COMMIT
    assert [path.name for path in sorted((folder / "data").iterdir())] == [Path(name).name for name in TRAIN]
    assert (folder / TRAIN[0]).read_bytes() == FILES[TRAIN[0]]
    assert names(dataset.resolve(SOURCE, split="test")) == ["data/test-00000-of-00001.jsonl"]


def test_a_commit_seen_once_needs_no_request_and_no_client(server: Hub, tmp_path: Path) -> None:
    found = dataset.resolve(SOURCE)
    fetched(found)
    server.requests.clear()
    code = (
        "import sys; from runner.registry import dataset; "
        f"d = dataset.resolve({found.ref!r}); print(len(d.files), 'huggingface_hub' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["2", "False"]
    assert dataset.resolve(found.ref) == found
    fetched(found)
    assert not server.requests


def test_a_branch_that_moved_is_another_commit_and_the_old_one_stays(server: Hub) -> None:
    old = dataset.resolve(SOURCE)
    server.repos[f"datasets/{NAME}"] = Repo(commit=NEXT, files={"train.csv": b"text\na\n"})
    new = dataset.resolve(SOURCE)
    assert (new.commit, names(new)) == (NEXT, ["train.csv"])
    assert dataset.resolve(old.ref) == old


def test_offline_what_was_planned_is_known(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with_network = dataset.resolve(SOURCE, revision="v1")
    fetched(with_network)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    server.requests.clear()
    found = dataset.resolve(SOURCE, revision="v1")
    assert found == with_network
    fetched(found)
    assert not server.requests
    with pytest.raises(
        JobError, match=f"dataset '{NAME}' lacks 'data/test-.*HF_HUB_OFFLINE is set; .*the dataset"
    ) as no:
        fetched(dataset.resolve(SOURCE, revision="v1", split="test"))
    assert no.value.failure == "NotFound"
    with pytest.raises(PlanError, match=f"dataset '{NAME}' at revision 'main' is not in the cache"):
        dataset.resolve(SOURCE)


def test_offline_a_snapshot_that_another_program_took_is_used(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "hf" / "hub" / "datasets--someone--chats" / "snapshots" / COMMIT
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "train.jsonl").write_bytes(b"{}\n")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert names(dataset.resolve(SOURCE, revision=COMMIT)) == ["data/train.jsonl"]


def test_a_pattern_says_which_files(server: Hub) -> None:
    found = dataset.resolve(f"{SOURCE}#data/*00001*.jsonl")
    assert names(found) == ["data/test-00000-of-00001.jsonl", TRAIN[1]]
    assert found.ref == f"{SOURCE}@{COMMIT}#data/*00001*.jsonl"
    assert found.digest == f"commit:{COMMIT}#data/*00001*.jsonl"
    assert dataset.resolve(found.ref) == found


CHOICES: list[tuple[list[str], str, list[str] | str]] = [
    (["a.jsonl", "b.jsonl"], "train", ["a.jsonl", "b.jsonl"]),
    (["chat_train.jsonl", "constrain.jsonl"], "train", ["chat_train.jsonl"]),
    (["train/a.parquet", "train/b.parquet", "test/a.parquet"], "train", ["train/a.parquet", "train/b.parquet"]),
    (["en/train.jsonl", "de/train.jsonl"], "train", "has files of split 'train' of several folders: de, en; say which"),
    (
        ["train.jsonl", "train.csv"],
        "train",
        "has files of split 'train' of several types: .csv, .jsonl; say which with",
    ),
    (
        ["a.jsonl"],
        "validation",
        "has no file of split 'validation'; it has a.jsonl: say which with source: hf:someone/",
    ),
    (["test.jsonl"], "train", "has no file of split 'train'; it has test.jsonl"),
    (["README.md", "x.zip"], "train", "has no file of a known type .*; it has README.md, x.zip"),
    (["train.jsonl", "LICENSE.txt"], "train", ["train.jsonl"]),
]


@pytest.mark.parametrize(("files", "split", "expected"), CHOICES, ids=lambda value: str(value)[:30])
def test_a_split_is_told_by_names_or_not_at_all(server: Hub, files: list[str], split: str, expected: Any) -> None:
    server.repos[f"datasets/{NAME}"].files = dict.fromkeys(files, b"{}\n")
    if isinstance(expected, list):
        assert names(dataset.resolve(SOURCE, split=split)) == expected
    else:
        with pytest.raises(PlanError, match=expected):
            dataset.resolve(SOURCE, split=split)


def test_patterns_that_match_nothing_or_no_corpus(server: Hub) -> None:
    with pytest.raises(
        PlanError, match=r"no file that matches 'x\*'; it has README.md, .*data/train-00001-of-00002.jsonl"
    ):
        dataset.resolve(f"{SOURCE}#x*")
    with pytest.raises(
        PlanError, match="takes the files that match, whatever split they are of; leave split 'test' out"
    ):
        dataset.resolve(f"{SOURCE}#data/*", split="test")
    with pytest.raises(PlanError, match=r"'README.md' of dataset 'someone/chats' is no corpus: known types are"):
        dataset.resolve(f"{SOURCE}#README*")


@pytest.mark.parametrize("source", ["hf:", "hf:chats", "hf:a/b/c", "hf:../x", "hf:a b/c"])
def test_what_is_no_dataset_is_refused_before_any_request(server: Hub, source: str) -> None:
    with pytest.raises(PlanError, match="is no dataset of a hub: write hf:owner/name"):
        dataset.resolve(source)
    assert not server.requests


def test_refusals_name_the_dataset_and_its_page(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PlanError, match=f"dataset 'a/b' is not on {server.url}.*/datasets/a/b"):
        dataset.resolve("hf:a/b")
    with pytest.raises(PlanError, match=f"dataset '{NAME}' has no revision 'v9'"):
        dataset.resolve(SOURCE, revision="v9")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.repos[f"datasets/{NAME}"].token = "another"
    with pytest.raises(PlanError) as caught:
        dataset.resolve(SOURCE)
    assert "your token may not read it" in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_gated_dataset_says_so_when_it_is_fetched(server: Hub) -> None:
    server.repos[f"datasets/{NAME}"].gated = True
    with pytest.raises(JobError, match=f"dataset '{NAME}' is gated: accept its terms at .*/datasets/{NAME}") as caught:
        fetched(dataset.resolve(SOURCE))
    assert caught.value.failure == "NotFound"


def test_a_broken_connection_is_taken_up(server: Hub) -> None:
    server.repos[f"datasets/{NAME}"].files[TRAIN[0]] = content = os.urandom(200_000)
    server.cut_once[TRAIN[0]] = 50_000
    found = dataset.resolve(SOURCE)
    assert (fetched(found) / TRAIN[0]).read_bytes() == content


def test_a_file_of_another_size_is_refused(server: Hub) -> None:
    found = dataset.resolve(SOURCE)
    server.repos[f"datasets/{NAME}"].files[TRAIN[0]] = b"shorter"
    with pytest.raises(JobError, match=r"of dataset 'someone/chats' has 7 bytes where the hub lists 14") as caught:
        fetched(found)
    assert caught.value.failure == "DataInvalid"
