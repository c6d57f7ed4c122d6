from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.execution.inputs import Inputs
from runner.plan.inputs import Pinner
from runner.plan.step import Step
from runner.schema.errors import ConflictError, PlanError, SpecError
from runner.schema.kinds import job_class
from runner.store.digests import Digests
from tests.plan.house import House
from tests.registry.hub_server import Hub, Repo, serving


@pytest.fixture
def folder(house: House) -> Path:
    (house.folder / "chats").mkdir()
    for name in ("a", "b"):
        write(house.folder / "chats" / f"{name}.jsonl", name)
    write(house.folder / "one.jsonl", "one")
    return house.folder


def write(path: Path, text: str) -> None:
    path.write_text(json.dumps({"text": text}) + "\n")


def saved(path: Path, *, text: str = "a") -> None:
    """A folder as `Dataset.save_to_disk` writes it, as far as a plan looks."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (path / "dataset_info.json").write_text("{}")
    (path / "data-00000-of-00001.arrow").write_text(text)


def spec(*train: Any, **data: Any) -> dict[str, Any]:
    return {
        "kind": "llm-train",
        "name": "chat",
        "architecture": {"type": "llama"},
        "method": "pretrain",
        "data": {"train": list(train), **data},
        "train": {"epochs": 1},
    }


def planned(house: House, *train: Any, **data: Any) -> Step:
    (step,) = house.plan(spec(*train, **data)).steps
    return step


def inputs(house: House, step: Step) -> Inputs:
    return Inputs(step=step, spec=job_class(step.kind).model_validate(step.spec), store=house.store)


def test_a_stream_is_another_job_for_it_gives_another_order(house: House, folder: Path) -> None:
    fields = spec("one.jsonl") | {"train": {"max_steps": 2}}
    (once,) = house.plan(fields).steps
    (streamed,) = house.plan(fields | {"data": fields["data"] | {"streaming": True}}).steps
    assert streamed.fingerprint != once.fingerprint


def test_every_corpus_is_an_input_by_its_own_name(house: House, folder: Path) -> None:
    step = planned(house, "one.jsonl", {"source": "chats/*.jsonl", "weight": 2}, validation="chats/a.jsonl")
    found = [(one.field, one.ref, one.files, one.path) for one in step.inputs]
    assert found == [
        ("data.train[0].source", "one.jsonl", 1, str(folder / "one.jsonl")),
        ("data.train[1].source", "chats/*.jsonl", 2, None),
        ("data.validation[0].source", "chats/a.jsonl", 1, str(folder / "chats" / "a.jsonl")),
    ]


def test_a_job_is_given_the_files(house: House, folder: Path) -> None:
    saved(folder / "set" / "train")
    (folder / "set" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    step = planned(house, "one.jsonl", "chats/*.jsonl", "set")
    given = inputs(house, step).given(print)
    assert given["data.train[0].source"].path == folder / "one.jsonl"
    assert given["data.train[0].source"].files == ()
    assert given["data.train[1].source"].path == folder
    assert given["data.train[1].source"].files == ("chats/a.jsonl", "chats/b.jsonl")
    assert given["data.train[2].source"].path == folder / "set"


def test_content_decides_and_the_name_of_a_single_file_does_not(house: House, folder: Path) -> None:
    marks = [planned(house, "one.jsonl").fingerprint]
    (folder / "one.jsonl").rename(folder / "two.jsonl")
    marks.append(planned(house, "two.jsonl").fingerprint)
    assert marks[0] == marks[1]
    write(folder / "two.jsonl", "other")
    assert planned(house, "two.jsonl").fingerprint != marks[1]
    (folder / "two.jsonl").rename(folder / "two.txt")
    assert planned(house, "two.txt").fingerprint != planned(house, "chats/a.jsonl").fingerprint


def publish(house: House, step: Step) -> None:
    listings = pairs(house, step)
    house.publish(step, files={"model/config.json": b"{}"}, listings=listings)


def pairs(house: House, step: Step) -> Any:
    return inputs(house, step).check(Pinner(Digests(house.store.layout.digests)))


def test_what_changed_is_told_corpus_by_corpus(house: House, folder: Path) -> None:
    publish(house, planned(house, "one.jsonl", "chats/*.jsonl"))
    step = planned(house, "one.jsonl", "chats/*.jsonl")
    assert (step.action, step.reasons) == ("reuse", ("v1 has this fingerprint",))
    write(folder / "one.jsonl", "changed")
    write(folder / "chats" / "c.jsonl", "c")
    write(folder / "chats" / "a.jsonl", "changed")
    assert planned(house, "one.jsonl", "chats/*.jsonl").reasons == (
        "data.train[0].source: 1 file changed",
        "data.train[1].source: 1 file changed, 1 added",
    )
    step = planned(house, {"source": "one.jsonl", "weight": 0.5, "format": "text"})
    assert step.reasons == (
        "data.train[0].format null -> text",
        "data.train[0].weight 1.0 -> 0.5",
        "data.train[0].source: 1 file changed",
        "data.train[1].source: no longer an input",
    )
    assert (
        "data.train[2].source: now chats/b.jsonl"
        in planned(house, "one.jsonl", "chats/*.jsonl", "chats/b.jsonl").reasons
    )


@pytest.mark.parametrize("change", ["chats/a.jsonl", "chats/new.jsonl"])
def test_what_changes_between_plan_and_run_stops_the_run(house: House, folder: Path, change: str) -> None:
    step = planned(house, "chats/*.jsonl")
    pairs(house, step)
    write(folder / change, "changed")
    with pytest.raises(ConflictError, match=r"data.train\[0\].source: the files behind 'chats/\*.jsonl' are not what"):
        pairs(house, step)


def test_a_folder_of_the_datasets_package_is_what_it_names(house: House, folder: Path) -> None:
    saved(folder / "set")
    first = planned(house, "set")
    (folder / "set" / "cache-0123456789abcdef.arrow").write_text("left by the package")
    assert planned(house, "set").fingerprint == first.fingerprint
    assert first.inputs[0].files == 3
    (folder / "set" / "data-00000-of-00001.arrow").write_text("other")
    assert planned(house, "set").fingerprint != first.fingerprint


def test_only_the_split_of_a_folder_decides(house: House, folder: Path) -> None:
    for split in ("train", "test"):
        saved(folder / "set" / split, text=split)
    (folder / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    train, test = (planned(house, {"source": "set", "split": split}) for split in ("train", "test"))
    assert train.inputs[0].digest != test.inputs[0].digest
    saved(folder / "set" / "test", text="changed")
    assert planned(house, "set").fingerprint == train.fingerprint
    with pytest.raises(PlanError, match=r"data.train\[0\].source: 'set' has no split 'dev'; it has test, train"):
        planned(house, {"source": "set", "split": "dev"})


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("gone.jsonl", r"'gone.jsonl' does not exist \(looked in "),
        ("chats/*.json", r"no file matches 'chats/\*.json'"),
        ("chats", r"folder 'chats' was not written by save_to_disk; give its files as a pattern: 'chats/\*.jsonl'"),
        ("model/*", r"'model/model.safetensors' is no corpus: known types are .jsonl, "),
        ("clips/a.wav", r"'clips/a.wav' is no corpus"),
        ("artifact:nobody#a.jsonl", "no artifact is called 'nobody'"),
    ],
)
def test_what_is_no_corpus_is_an_error_of_the_plan(house: House, folder: Path, source: str, reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        planned(house, "one.jsonl", source)


@pytest.mark.parametrize(("name", "value"), [("split", "dev"), ("revision", "v1")])
def test_what_only_datasets_have_is_refused_beside_files(house: House, folder: Path, name: str, value: str) -> None:
    with pytest.raises(PlanError, match=f"'one.jsonl' is no dataset, so it has no {name} '{value}'; leave {name} out"):
        planned(house, {"source": "one.jsonl", name: value})


def test_a_damaged_folder_is_an_error_of_the_plan(house: House, folder: Path) -> None:
    saved(folder / "set")
    (folder / "set" / "state.json").write_text("[]")
    with pytest.raises(PlanError, match=r"'set': 'state.json' does not say which files there are; save it again"):
        planned(house, "set")


def test_a_file_called_like_a_pattern_is_itself(house: House, folder: Path) -> None:
    write(folder / "take[1].jsonl", "x")
    (found,) = planned(house, "take[1].jsonl").inputs
    assert (found.files, found.path) == (1, str(folder / "take[1].jsonl"))


def test_a_table_out_of_an_artifact_comes_from_it(house: House, folder: Path) -> None:
    made = house.spec()
    texts = spec("artifact:a#transcripts.jsonl")
    first, second = house.plan(made, texts).steps
    assert (second.action, second.after) == ("create", ("a",))
    house.publish(first)
    _, again = house.plan(made, texts).steps
    assert again.fingerprint == second.fingerprint
    given = inputs(house, second).given(print)["data.train[0].source"]
    assert given.path.read_bytes() == house.transcripts(first)
    assert given.files == ()


def test_an_artifact_needs_a_path(house: House, folder: Path) -> None:
    with pytest.raises(SpecError, match="say which file of the artifact it is"):
        planned(house, "artifact:a")


def test_a_dataset_of_a_hub_is_pinned_to_its_commit(
    house: House, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = "1" * 40, "2" * 40
    hub = Hub(repos={"datasets/a/b": Repo(commit=first, files={"train.jsonl": b"{}", "test.jsonl": b"{}"})})
    with serving(hub):
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        step = planned(house, "hf:a/b")
        assert [(one.ref, one.digest, one.files, one.size) for one in step.inputs] == [
            (f"hf:a/b@{first}", f"commit:{first}", 1, 2)
        ]
        publish(house, step)
        assert planned(house, {"source": "hf:a/b", "revision": first}).action == "reuse"
        assert planned(house, {"source": "hf:a/b", "split": "test"}).reasons == ("data.train[0].split train -> test",)
        assert planned(house, "hf:a/b#t*").reasons == ("data.train[0].source: files of the split -> t*",)
        said: list[str] = []
        given = inputs(house, step).given(said.append)["data.train[0].source"]
        assert given.files == (str(given.path / "train.jsonl"),)
        assert given.path.name == first
        assert said == ["fetching train.jsonl of a/b (0.0 MB)"]
        hub.repos["datasets/a/b"].commit = second
        assert planned(house, "hf:a/b").reasons == (f"data.train[0].source: commit {first[:8]} -> {second[:8]}",)
        again = inputs(house, step).given(said.append)["data.train[0].source"]
        assert again == given  # still the commit of the plan
        with pytest.raises(PlanError, match=r"data.train\[0\].source: dataset 'a/c' is not on "):
            planned(house, "hf:a/c")
