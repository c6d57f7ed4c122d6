"""What each step will do, and the reasons that people read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.plan import inputs
from runner.plan.step import Plan, Step
from runner.registry.family import Resolved
from runner.registry.resolve import resolve
from runner.schema.errors import PlanError
from runner.schema.jobs.asr_transcribe import AsrTranscribe
from tests.plan.house import House, write_model


def _problems(house: House, *specs: dict[str, Any]) -> list[str]:
    with pytest.raises(PlanError) as caught:
        house.plan(*specs)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(house.folder) + "/", "").splitlines()


def test_a_first_plan_creates(house: House) -> None:
    step = house.step()
    assert (step.action, step.reasons, step.writes, step.reuse) == ("create", ("no artifact yet",), True, None)
    assert step.family == "wav2vec2"
    assert step.estimate["parameters"] == 36
    model, audio = step.inputs
    assert (model.field, model.ref, model.path, model.files) == ("model", "./model", str(house.folder / "model"), 3)
    assert (audio.field, audio.ref, audio.files, audio.size) == ("data.audio", "clips/*.wav", 2, 2)


def test_the_same_again_is_there_already(house: House) -> None:
    house.publish(house.step())
    step = house.step(compute={"workers": 2}, batch={"files": 1})
    assert (step.action, step.reasons, step.writes, step.reuse) == (
        "reuse",
        ("v1 has this fingerprint",),
        False,
        "a@v1",
    )


def test_reasons_name_the_fields(house: House) -> None:
    house.publish(house.step())
    step = house.step(decode={"beam_size": 8, "language": "pt"}, outputs=["srt"], compute={"workers": 2})
    assert step.action == "create"
    assert step.reasons == ("decode.beam_size 1 -> 8", "decode.language null -> pt", 'outputs [] -> ["srt"]')


def test_reasons_count_the_files(house: House) -> None:
    house.publish(house.step())
    house.clip("a", b"changed")
    house.clip("c")
    assert house.step().reasons == ("data.audio: 1 file changed, 1 added",)
    (house.folder / "clips" / "b.wav").unlink()
    house.clip("d")
    assert house.step().reasons == ("data.audio: 1 file changed, 2 added, 1 removed",)


def test_reasons_for_a_model_and_for_another_source(house: House) -> None:
    house.publish(house.step())
    write_model(house.folder / "model", seed=1)
    assert house.step().reasons == ("model: content changed",)
    write_model(house.folder / "other", seed=2)
    (house.folder / "m.jsonl").write_text('{"audio": "clips/a.wav"}\n')
    reasons = house.step(model="./other", data={"manifest": "m.jsonl"}).reasons
    assert reasons == ("model: ./model -> ./other", "data.manifest: now m.jsonl", "data.audio: no longer an input")


def test_reasons_for_new_code(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.publish(house.step())
    monkeypatch.setattr(AsrTranscribe, "code_version", AsrTranscribe.code_version + 1)
    assert house.step().reasons == ("code_version 2 -> 3",)


def test_going_back_moves_latest(house: House) -> None:
    house.publish(house.step())
    house.publish(house.step(precision="fp32"))
    step = house.step()
    assert (step.action, step.reuse, step.writes) == ("reuse", "a@v1", True)
    assert step.reasons == ("v1 has this fingerprint", "latest moves from v2 to v1")


def test_the_same_work_under_another_name_is_linked(house: House) -> None:
    house.publish(house.step())
    (step,) = house.plan(house.spec("b")).steps
    assert (step.action, step.reuse, step.writes) == ("reuse", "a@v1", True)
    assert step.reasons == ("a@v1 has this fingerprint", "will be linked as 'b'")


def test_the_same_work_twice_in_one_plan_is_done_once(house: House) -> None:
    first, second = house.plan(house.spec("b"), house.spec("a")).steps
    assert (first.name, first.action) == ("b", "create")
    assert (second.name, second.action, second.reuse, second.after) == ("a", "reuse", "b", ("b",))
    assert second.reasons == ("the same work as 'b' of this plan",)


def test_a_damaged_version_is_made_again(house: House) -> None:
    manifest = house.publish(house.step())
    (house.store.folder(manifest) / "files" / "transcripts.jsonl").unlink()
    step = house.step()
    assert step.action == "create"
    assert step.reasons == ("v1 is damaged: 'files/transcripts.jsonl' is missing",)


def test_gates_are_held_against_what_is_there(house: House) -> None:
    house.publish(house.step(), wer=0.08)
    assert house.step(gates={"max_wer": 0.1}).action == "reuse"
    step = house.step(gates={"max_wer": 0.05})
    assert (step.action, step.writes) == ("blocked", False)
    assert step.reasons == ("gate max_wer 0.05 not met: wer is 0.08 (a@v1); raise the limit or change the spec",)


def test_quarantine_blocks_until_the_gates_are_met(house: House) -> None:
    house.quarantine(house.step(gates={"max_wer": 0.05}), wer=0.08)
    step = house.step(gates={"max_wer": 0.05})
    assert step.action == "blocked"
    assert "gate max_wer 0.05 not met: wer is 0.08 (quarantined run a." in step.reasons[0]
    step = house.step(gates={"max_wer": 0.1})
    assert (step.action, step.writes) == ("reuse", True)
    assert step.reuse is not None
    assert step.reuse.startswith("quarantine:a.")
    assert house.step(precision="fp32", gates={"max_wer": 0.05}).action == "create"


def _chain(house: House, **fields: Any) -> Plan:
    down = house.spec("down", data={"manifest": "artifact:up#transcripts.jsonl", "root": "."})
    return house.plan(down, house.spec("up", **fields))


def _by_name(plan: Plan) -> dict[str, Step]:
    return {step.name: step for step in plan.steps}


def test_references_order_the_steps(house: House) -> None:
    up, down = _chain(house).steps
    assert (up.name, down.name, down.after) == ("up", "down", ("up",))
    assert down.inputs[1].ref == "artifact:up#transcripts.jsonl"
    assert down.inputs[1].digest == f"fingerprint:{up.fingerprint}#transcripts.jsonl"
    assert down.inputs[1].path is None
    for step in (up, down):
        house.publish(step)
    up, down = _chain(house).steps
    assert (up.action, down.action) == ("reuse", "reuse")
    assert down.inputs[1].ref == "artifact:up@v1#transcripts.jsonl"
    assert Path(down.inputs[1].path or "").is_file()
    down = _by_name(_chain(house, precision="fp32"))["down"]
    assert down.reasons == ("data.manifest: upstream 'up' will be made",)


def test_blocked_goes_down_the_graph(house: House) -> None:
    house.quarantine(_by_name(_chain(house))["up"], wer=0.5)
    up, down = _chain(house, gates={"max_wer": 0.1}).steps
    assert (up.action, down.action, down.reasons) == ("blocked", "blocked", ("upstream 'up' is blocked",))


def test_references_into_the_store_are_pinned(house: House) -> None:
    house.publish(house.step(name="up"))
    house.publish(house.step(name="up", precision="fp32"))
    down = house.spec("down", data={"manifest": "artifact:up#transcripts.jsonl"})
    assert house.plan(down).steps[0].inputs[1].ref == "artifact:up@v2#transcripts.jsonl"
    down = house.spec("down", data={"manifest": "artifact:up@v1#transcripts.jsonl"})
    steps = house.plan(down, house.spec("up", precision="bf16")).steps
    assert steps[0].inputs[1].ref == "artifact:up@v1#transcripts.jsonl"
    assert steps[0].after == ()


def test_a_model_out_of_an_artifact(house: House, tmp_path: Path) -> None:
    write_model(tmp_path / "made")
    files = {f"model/{path.name}": path.read_bytes() for path in (tmp_path / "made").iterdir()}
    house.publish(house.step(name="tuned", precision="fp32"), files=files)
    (step,) = house.plan(house.spec(model="artifact:tuned")).steps
    assert (step.inputs[0].ref, step.family, step.inputs[0].files) == ("artifact:tuned@v1", "wav2vec2", 3)
    assert step.inputs[0].path == str(house.store.root / "tuned" / "v1" / "files" / "model")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (
            "artifact:upp#transcripts.jsonl",
            "no artifact is called 'upp', neither in these specs nor in the store; did you mean 'up'?",
        ),
        ("artifact:up@v7#transcripts.jsonl", "'up' has no version v7; it has v1"),
        ("artifact:up#transcript.json", "up@v1 has no 'transcript.json'; it has transcripts.jsonl"),
        ("artifact:down@v1", "'down' has no version yet; leave out '@v1'"),
    ],
)
def test_references_that_lead_nowhere(house: House, reference: str, words: str) -> None:
    house.publish(house.step(name="up"))
    (problem,) = _problems(house, house.spec("down", data={"manifest": reference}))
    assert problem.startswith("set.yaml:1:")
    assert f"data.manifest: {words}" in problem


def test_a_loop_is_named(house: House) -> None:
    specs = [house.spec(a, data={"manifest": f"artifact:{b}#t.jsonl"}) for a, b in ("ab", "bc", "ca")]
    (problem,) = _problems(house, *specs)
    assert "data.manifest: these specs need each other: " in problem
    assert any(loop in problem for loop in ("a -> b -> c -> a", "b -> c -> a -> b", "c -> a -> b -> c"))
    (problem,) = _problems(house, house.spec("a", data={"manifest": "artifact:a#t.jsonl"}))
    assert "a -> a" in problem


def test_all_problems_of_all_specs_come_at_once(house: House) -> None:
    (house.folder / "bad.jsonl").write_text('{"text": "x"}\n')
    write_model(house.folder / "odd", model_type="unheard-of")
    found = _problems(
        house,
        house.spec("one", model="./modell", data={"audio": ["clips/*.wav", "clips/*.mp3"]}),
        house.spec("two", model="./odd", data={"manifest": "bad.jsonl"}),
        house.spec("three", model="artifact:two", data={"manifest": "artifact:nowhere"}),
    )
    assert len(found) == 5
    assert "no artifact is called 'nowhere'" in found[-1]
    text = "\n".join(found)
    assert "set.yaml:1:" in text
    assert "model.id: model './modell' does not exist" in text
    assert "data.audio[1]: no file matches 'clips/*.mp3' (looked in " in text
    assert "bad.jsonl:1:1: audio: required" in text
    assert "unheard-of" in text


def test_a_family_must_serve_the_kind(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def as_language_model(*args: Any, **options: Any) -> Resolved:
        found = resolve(*args, **options)
        return replace(found, family=replace(found.family, task="causal"))

    monkeypatch.setattr(inputs, "resolve", as_language_model)
    (problem,) = _problems(house, house.spec())
    assert "'./model' is of family wav2vec2, a causal model; asr-transcribe takes ctc, seq2seq" in problem


def test_a_plan_goes_through_json(house: House) -> None:
    plan = house.plan(house.spec(), house.spec("b", precision="fp32"))
    assert Plan.from_json(plan.to_json()) == plan


def test_planning_leaves_the_store_alone(house: House) -> None:
    house.publish(house.step())
    before = {path for path in house.store.root.rglob("*") if ".cache" not in path.parts}
    house.step(precision="fp32")
    assert {path for path in house.store.root.rglob("*") if ".cache" not in path.parts} == before


def test_a_kind_may_refuse_a_model(house: House) -> None:
    embed = house.spec(kind="asr-embed", layers=[1, -3])
    problem = "'./model': layers has -3, but the model has 0 to 1, or -1 to -2 from the end"
    assert problem in _problems(house, embed)[0]
    assert house.plan({**embed, "layers": [1]}).steps[0].action == "create"
    for name, files in (("onnx-int8", ["model.onnx"]), ("int8-weights", ["model.safetensors"])):
        about = {"version": 1, "variant": name, "parameters": 36, "settings": {}, "weights": files}
        form = "onnx" if name == "onnx-int8" else "quantised"
        (house.folder / "model" / files[0]).touch()
        (house.folder / "model" / "variant.json").write_text(json.dumps({**about, "format": form}))
        if form == "onnx":
            assert "onnx-int8 is a graph that gives texts and no hidden states" in _problems(house, embed)[0]
        else:
            assert house.plan({**embed, "layers": [1]}).steps[0].action == "create"


@pytest.mark.parametrize(
    ("variant", "form"), [("fp16", "transformers"), ("int8-weights", "quantised"), ("onnx-int8", "onnx")]
)
def test_a_variant_is_not_rounded_again_and_trained_only_where_it_has_weights(
    house: House, variant: str, form: str
) -> None:
    (house.folder / "a.jsonl").write_text(json.dumps({"audio": "clips/a.wav", "text": "oi"}) + "\n")
    tune = house.spec(kind="asr-finetune", data={"train": "a.jsonl", "validation": "a.jsonl"}, train={"steps": 1})
    quantise = house.spec(kind="asr-quantize", data={"validation": "a.jsonl"})
    assert [house.plan(one).steps[0].action for one in (tune, quantise)] == ["create", "create"]
    file = "model.onnx" if form == "onnx" else "model.safetensors"
    about = {"version": 1, "variant": variant, "format": form, "parameters": 36, "settings": {}, "weights": [file]}
    (house.folder / "model" / file).touch()
    (house.folder / "model" / "variant.json").write_text(json.dumps(about))
    assert f"is a variant already ({variant}): quantise the model that it was made" in _problems(house, quantise)[0]
    if form == "transformers":
        assert house.plan(tune).steps[0].action == "create"
    else:
        assert f"is a variant of asr-quantize ({variant}): train the model that it" in _problems(house, tune)[0]
