"""Damage of any kind is found and named; what an artifact was made from is looked at too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.schema.errors import UsageError
from runner.store.diff import differences
from runner.store.local import Store
from runner.store.manifest import Manifest
from runner.store.verify import verify
from tests.plan.house import House

Publish = Callable[..., Manifest]
FINGERPRINT, OTHER = "ab" * 32, "cd" * 32


def _rewrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def test_a_sound_store(store: Store, publish: Publish) -> None:
    assert verify(store).artifacts == ()
    publish("a")
    store.link("a@v1", "b")
    found = verify(store)
    assert found.artifacts == ("a@v1", "b@v1") and found.damage == () and found.files == 8
    assert [b.ref for b in found.bases] == ["./model", "./model"]
    assert verify(store, "a") == verify(store, "a@v1") and verify(store, "a").artifacts == ("a@v1",)


@pytest.mark.parametrize("path", ["files/texts.jsonl", "records/timing.jsonl", "report.html"])
@pytest.mark.parametrize("same_size", [True, False])
def test_changed_content(store: Store, publish: Publish, path: str, same_size: bool) -> None:
    publish("a")
    file = store.root / "a" / "v1" / path
    _rewrite(file, b"?" * (file.stat().st_size + (not same_size)))
    told = [str(d) for d in verify(store, "a@v1").damage]
    assert len(told) == 1 and told[0].startswith(f"a@v1/{path}: changed: ") and "; the manifest says" in told[0]
    assert str(verify(store).damage[0]) == told[0]


def test_missing_and_extra_files(store: Store, publish: Publish) -> None:
    publish("a")
    folder = store.root / "a" / "v1" / "files"
    (folder / "texts.jsonl").rename(folder / "other.jsonl")
    found = {(d.where, d.what) for d in verify(store).damage}
    assert found == {("a@v1/files/texts.jsonl", "missing"), ("a@v1/files/other.jsonl", "extra")}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.update(digest="0" * 64), "its digest is not that of its list of files"),
        (lambda d: d["files"][0].update(size=1), "its digest is not that of its list of files"),
        (lambda d: d.update(name="z"), "says it is z@v1"),
        (lambda d: d.pop("spec"), "a part is missing"),
    ],
    ids=["digest", "size", "name", "part"],
)
def test_a_damaged_manifest(
    store: Store, publish: Publish, change: Callable[[dict[str, object]], None], told: str
) -> None:
    publish("a")
    path = store.root / "a" / "v1" / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    found = verify(store).damage
    assert any(d.what == "manifest" and told in d.detail for d in found), found


def test_a_version_without_manifest(store: Store, publish: Publish) -> None:
    publish("a")
    (store.root / "a" / "v1" / "manifest.json").unlink()
    assert [d.what for d in verify(store).damage] == ["missing"]
    assert [d.what for d in verify(store, "a@v1").damage] == ["missing"]


def test_a_damaged_blob_that_no_artifact_shows(store: Store, publish: Publish) -> None:
    publish("a")
    file = store.root / "a" / "v1" / "files" / "texts.jsonl"
    content = file.read_bytes()
    blob = next(p for p in store.layout.blobs.rglob("*") if p.is_file() and p.samefile(file))
    file.unlink()
    file.write_bytes(content)
    _rewrite(blob, b"rot")
    assert verify(store, "a").damage == ()
    assert [d.what for d in verify(store).damage] == ["changed"]


def _made_from(publish: Publish, ref: str, digest: str) -> None:
    publish("b", fingerprint=OTHER, inputs=[{"field": "model", "ref": ref, "digest": digest}])


def test_the_chain_is_followed_to_the_base(store: Store, publish: Publish) -> None:
    first = publish(
        "a", inputs=[{"field": "model", "ref": "hf:owner/name@" + "1" * 40, "digest": "commit:" + "1" * 40}]
    )
    digests = [f"fingerprint:{FINGERPRINT}", f"sha256:{first.digest}"]
    for ref in ("artifact:a@v1", "artifact:a@v1#texts.jsonl", "artifact:a#texts.jsonl"):
        for digest in digests[: 1 if "@" not in ref else 2]:
            _made_from(publish, ref, digest)
            found = verify(store, "b")
            assert found.damage == () and found.artifacts[1] == "a@v1"
            assert [(b.artifact, b.ref) for b in found.bases] == [("a@v1", "hf:owner/name@" + "1" * 40)]
    _made_from(publish, "artifact:a@v1#texts.jsonl", f"sha256:{first.files[1].sha256}")
    assert verify(store, "b").damage == ()
    _rewrite(store.root / "a" / "v1" / "files" / "texts.jsonl", b"?" * 17)
    latest = store.versions("b")[-1]  # the same content, the same blob
    assert {d.where for d in verify(store, "b").damage} == {f"{n}/files/texts.jsonl" for n in ("a@v1", f"b@{latest}")}


@pytest.mark.parametrize(
    ("ref", "digest", "told"),
    [
        ("artifact:a@v9", f"fingerprint:{FINGERPRINT}", "is not in the store"),
        ("artifact:a", f"fingerprint:{OTHER[:-2]}00", "is not in the store"),
        ("artifact:../..", "x", "is not in the store"),
        ("artifact:a@v1", f"fingerprint:{OTHER}", "had digest .* and is another one now"),
    ],
)
def test_a_broken_chain(store: Store, publish: Publish, ref: str, digest: str, told: str) -> None:
    publish("a")
    _made_from(publish, ref, digest)
    damage = verify(store, "b").damage
    assert [d.what for d in damage] == ["input"]
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(damage[0].detail)


@pytest.mark.parametrize("reference", ["artifact:up#transcripts.jsonl", "artifact:up@v1#transcripts.jsonl"])
def test_an_input_as_the_planner_pins_it(tmp_path: Path, reference: str) -> None:
    house = House(tmp_path)
    up = house.spec("up")
    rows = {"transcripts.jsonl": b'{"path": "clips/a.wav", "text": "a"}\n'}
    if "@" in reference:
        house.publish(house.plan(up).steps[0], files=rows)
    down = house.spec("down", data={"manifest": reference, "root": "."})
    for step in house.plan(up, down).steps:  # without a version the plan pins what it is going to make
        if step.action == "create":
            house.publish(step, files=rows)
    found = verify(house.store, "down")
    assert found.damage == () and found.artifacts == ("down@v1", "up@v1")


def test_an_input_whose_recordings_the_planner_looked_at_itself(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.publish(house.step(name="up"))
    house.clip("a", b"changed")
    (down,) = house.plan(house.spec("down", data={"manifest": "artifact:up#transcripts.jsonl", "root": "."})).steps
    assert "+sha256:" in down.inputs[1].digest
    house.publish(down)
    assert verify(house.store, "down").damage == ()


def test_an_input_that_the_planner_pinned_to_another_artifact(tmp_path: Path) -> None:
    house = House(tmp_path)
    _, down = house.plan(
        house.spec("up"), house.spec("down", data={"manifest": "artifact:up#transcripts.jsonl", "root": "."})
    ).steps
    house.publish(down)
    assert [d.what for d in verify(house.store, "down").damage] == ["input"]


def test_unknown_artifacts(store: Store, publish: Publish) -> None:
    publish("a")
    for reference in ("z", "a@v2"):
        with pytest.raises(UsageError, match=f"there is no artifact '{reference}'"):
            verify(store, reference)


def test_differences(store: Store, publish: Publish) -> None:
    one = publish("a")
    two = publish(
        "a",
        fingerprint=OTHER,
        files={"texts.jsonl": b"new\n", "more.txt": b""},
        spec={"kind": "asr-transcribe", "name": "a", "decode": {"beam_size": 8, "language": "pt"}},
        inputs=[],
        metrics={"wer": 0.1},
        environment={"python": "3.12"},
    )
    found = differences(one, two)
    assert found["spec"] == {"decode.beam_size": (1, 8), "decode.language": (None, "pt")}
    assert found["inputs"] == {"model": ("./model (sha256:00)", None)}
    assert found["metrics"] == {"wer": (0.125, 0.1)} and found["environment"] == {"python": ("3.11", "3.12")}
    assert set(found["files"]) == {"files/texts.jsonl", "files/more.txt", "files/sub folder/pão.txt"}
    assert not any(differences(one, one).values())
