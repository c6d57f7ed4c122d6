"""Publishing and finding artifacts again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.schema.errors import StoreError, UsageError
from runner.store.local import Store, open_store
from runner.store.manifest import Manifest, digest_of

Publish = Callable[..., Manifest]
FINGERPRINT, OTHER = "ab" * 32, "cd" * 32


def test_an_artifact_lies_as_the_design_says(store: Store, publish: Publish) -> None:
    manifest = publish("podcast")
    folder = store.root / "podcast" / "v1"
    assert manifest.version == "v1" and (store.root / "podcast" / "latest").read_text() == "v1\n"
    assert [f.path for f in manifest.files] == ["files/sub folder/pão.txt", "files/texts.jsonl"]
    assert [f.path for f in manifest.records] == ["records/timing.jsonl", "report.html"]
    assert (folder / "files" / "sub folder" / "pão.txt").read_text() == "pão\n"
    assert manifest.digest == digest_of(manifest.files)
    assert Manifest.from_json(json.loads((folder / "manifest.json").read_text())) == manifest == store.get("podcast")
    blob = store.root / ".blobs" / "sha256" / manifest.files[0].sha256[:2] / manifest.files[0].sha256
    assert blob.samefile(folder / manifest.files[0].path) and blob.stat().st_mode & 0o777 == 0o444


def test_nothing_is_created_before_something_is_written(store: Store) -> None:
    assert store.names() == store.versions("podcast") == store.runs() == []
    assert store.latest("podcast") is store.get("podcast", "v1") is store.by_fingerprint(FINGERPRINT, "podcast") is None
    assert store.holder("podcast") is None and store.find_quarantined("podcast", FINGERPRINT) is None
    assert not store.root.exists()


def test_versions_count_up_and_share_content(store: Store, publish: Publish) -> None:
    first, second = publish("a"), publish("a", fingerprint=OTHER)
    assert store.versions("a") == ["v1", "v2"] and store.latest("a") == second
    one, two = (store.root / "a" / v / "files" / "texts.jsonl" for v in ("v1", "v2"))
    assert one.samefile(two) and first.digest == second.digest


def test_the_digest_knows_content_and_path_but_no_run(publish: Publish) -> None:
    one, again = publish("a"), publish("b")
    other = publish("c", files={"texts.jsonl": b"else"})
    assert one.digest == again.digest != other.digest


def test_a_fingerprint_is_found_under_its_own_name_first(store: Store, publish: Publish) -> None:
    publish("b")
    assert store.by_fingerprint(FINGERPRINT, "a") == "b@v1"
    publish("a", fingerprint=OTHER)
    publish("a")
    assert store.by_fingerprint(FINGERPRINT, "a") == "a@v2"
    assert store.by_fingerprint(FINGERPRINT, "b") == "b@v1"
    assert store.by_fingerprint("ef" * 32, "a") is None


def test_look_ups_do_without_the_index(store: Store, publish: Publish) -> None:
    publish("a")
    shutil.rmtree(store.root / ".index")
    assert open_store(str(store.root)).by_fingerprint(FINGERPRINT, "b") == "a@v1"
    publish("c", fingerprint=OTHER)
    assert store.by_fingerprint(FINGERPRINT, "b") == "a@v1" and (store.root / ".index").is_dir()


def test_stale_index_entries_do_no_harm(store: Store, publish: Publish) -> None:
    publish("a")
    folder = store.root / ".index" / FINGERPRINT
    for entry in ("a@v9", "gone@v1", "nonsense", "../x@v1".replace("/", "_")):
        (folder / entry).touch()
    assert store.by_fingerprint(FINGERPRINT, "b") == "a@v1"


@pytest.mark.parametrize("content", [None, "", "v7\n", "../../etc", "\x00\xff"])
def test_a_lost_or_damaged_latest_falls_back_to_the_highest(
    store: Store, publish: Publish, content: str | None
) -> None:
    publish("a")
    publish("a", fingerprint=OTHER)
    ref = store.root / "a" / "latest"
    ref.unlink() if content is None else ref.write_text(content)
    found = store.latest("a")
    assert found and found.version == "v2"


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("fingerprint"),
        lambda d: d.update(version="v2"),
        lambda d: d.update(name="other"),
        lambda d: d.update(schema_version=99),
        lambda d: d.update(files=None),
        lambda d: d["files"].append({"path": "files/../../../x", "size": 1, "sha256": "0" * 64, "media_type": "a/b"}),
        lambda d: d["files"].append({"path": "/etc/passwd", "size": 1, "sha256": "0" * 64, "media_type": "a/b"}),
        lambda d: d["files"].append({"path": "files/x", "size": "1", "sha256": "0" * 64, "media_type": "a/b"}),
        lambda d: d["records"].append({"path": "latest", "size": 1, "sha256": "0" * 64, "media_type": "a/b"}),
    ],
    ids=["field", "version", "name", "schema", "type", "climbs", "absolute", "size", "record"],
)
def test_a_version_without_valid_manifest_does_not_exist(
    store: Store, publish: Publish, damage: Callable[[dict[str, Any]], None]
) -> None:
    publish("a")
    path = store.root / "a" / "v1" / "manifest.json"
    data = json.loads(path.read_text())
    damage(data)
    path.write_text(json.dumps(data))
    assert store.names() == [] and store.latest("a") is None and store.get("a", "v1") is None
    assert store.by_fingerprint(FINGERPRINT, "a") is None
    assert publish("a").version == "v2"  # its number is not given again


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\x00"])
def test_a_manifest_that_is_no_manifest_does_not_exist(store: Store, publish: Publish, text: str) -> None:
    publish("a")
    (store.root / "a" / "v1" / "manifest.json").write_text(text)
    assert store.latest("a") is None


def test_missing_or_cut_files_are_noticed(store: Store, publish: Publish) -> None:
    publish("a")
    path = store.root / "a" / "v1" / "files" / "texts.jsonl"
    path.chmod(0o644)
    path.write_bytes(b"cut")
    with pytest.raises(StoreError, match=r"a@v1 is damaged: 'files/texts\.jsonl' has 3 bytes instead of 17"):
        store.get("a")
    assert store.by_fingerprint(FINGERPRINT, "a") is None
    path.unlink()
    with pytest.raises(StoreError, match="is missing"):
        store.get("a", "v1")
    assert publish("a").version == "v2"
    assert (store.root / "a" / "v2" / "files" / "texts.jsonl").stat().st_size == 17  # publishing anew heals the blob
    assert store.by_fingerprint(FINGERPRINT, "a") == "a@v2"


def test_keys_of_a_newer_writer_are_kept(store: Store, publish: Publish) -> None:
    publish("a")
    path = store.root / "a" / "v1" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "blue"}))
    found = store.latest("a")
    assert found and found.extra == {"colour": "blue"}


def test_link_gives_a_second_name_without_copying(store: Store, publish: Publish) -> None:
    publish("a")
    linked = store.link("a@v1", "b")
    assert (linked.name, linked.version, linked.linked_from) == ("b", "v1", "a@v1")
    assert store.latest("b") == store.get("b", "v1") == linked
    assert (store.root / "b/v1/files/texts.jsonl").samefile(store.root / "a/v1/files/texts.jsonl")
    assert store.by_fingerprint(FINGERPRINT, "b") == "b@v1"
    with pytest.raises(StoreError, match=r"'z@v1' does not exist; `runner artifacts ls`"):
        store.link("z@v1", "b")


def test_latest_can_be_moved(store: Store, publish: Publish) -> None:
    publish("a")
    publish("a", fingerprint=OTHER)
    store.point_latest("a", "v1")
    found = store.latest("a")
    assert found and found.version == "v1"
    with pytest.raises(StoreError, match=r"a@v3 does not exist"):
        store.point_latest("a", "v3")
    with pytest.raises(StoreError, match=r"nothing@v1 does not exist"):
        store.point_latest("nothing", "v1")


def test_quarantine_keeps_an_artifact_without_a_name(store: Store, make_draft: Any) -> None:
    with store.lease("a") as lease:
        kept = store.quarantine(make_draft(lease, gates=[{"name": "max_wer", "passed": False}]), lease=lease)
        assert store.names() == [] and store.by_fingerprint(FINGERPRINT, "a") is None
        assert store.find_quarantined("a", FINGERPRINT) == kept
        assert store.find_quarantined("a", OTHER) is None and store.find_quarantined("b", FINGERPRINT) is None
        again = store.quarantine(make_draft(lease), lease=lease)
        assert store.find_quarantined("a", FINGERPRINT) == again and not kept.folder.exists()
        report = store.root / "new.json"
        report.write_text("{}")
        gates = [{"name": "max_wer", "passed": True}]
        manifest = store.release(
            again, spec={"gates": {"max_wer": 1}}, gates=gates, reports={"report.json": report}, lease=lease
        )
        assert store.get("a") == manifest and manifest.version == "v1" and manifest.gates == tuple(gates)
        assert [f.path for f in manifest.records] == ["records/timing.jsonl", "report.html", "report.json"]
        assert store.find_quarantined("a", FINGERPRINT) is None and not again.folder.exists()


def test_bad_names_and_places_are_refused(store: Store, tmp_path: Path) -> None:
    for name in ("", "A", "../x", "a/b", ".blobs", "a" * 64, "a\n"):
        with pytest.raises(UsageError, match="is no artifact name; allowed are"):
            store.latest(name)
        with pytest.raises(UsageError, match="is no artifact name"):
            store.lease(name)
    with pytest.raises(UsageError, match=r"'3' is no version; versions are v1, v2"):
        store.get("a", "3")
    with pytest.raises(UsageError, match=r"'\.\./x' is no run"):
        store.run_folder("../x")
    with pytest.raises(UsageError, match=r"'s3://bucket/x' is a URL; only local paths work until shared stores come"):
        open_store("s3://bucket/x")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"is a file; give a folder"):
        open_store(str(tmp_path / "file"))


def test_a_thousand_look_ups_take_half_a_second(store: Store, publish: Publish) -> None:
    publish("a")
    data = json.loads((store.root / "a/v1/manifest.json").read_text())
    for n in range(1000):
        fingerprint, name = f"{n:064x}", f"n{n}"
        folder = store.root / name / "v1"
        folder.mkdir(parents=True)
        for file in (*data["files"], *data["records"]):
            (folder / file["path"]).parent.mkdir(parents=True, exist_ok=True)
            os.link(store.root / "a/v1" / file["path"], folder / file["path"])
        text = json.dumps({**data, "name": name, "fingerprint": fingerprint})
        (folder / "manifest.json").write_text(text)
        (store.root / name / "latest").write_text("v1\n")
    shutil.rmtree(store.root / ".index")
    publish("b")

    def look_up() -> float:
        fresh, began = open_store(str(store.root)), time.process_time()
        for n in range(1000):
            assert fresh.by_fingerprint(f"{n:064x}", f"n{n}") == f"n{n}@v1"
            assert fresh.by_fingerprint(f"{n + 5000:064x}", f"n{n}") is None
        return time.process_time() - began

    assert min(look_up() for _ in range(2)) < 2 * 0.5  # found, and not found: two look-ups for each spec
    shutil.rmtree(store.root / ".index")
    assert min(look_up() for _ in range(2)) < 2 * 0.5 + 0.5  # without the index: the store is read through once


def test_the_store_is_light() -> None:
    code = (
        "import sys, runner.store.local, runner.store.digests; print({'torch','ray','numpy','rich'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
