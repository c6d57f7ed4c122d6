"""Language models, hotwords, tuning, calibration and routing in the real job.

Synthetic speech in noise, with a closed vocabulary of 71 words: the figures show that the parts work together, and say
nothing about real speech. Models are trained on other sentences of that vocabulary; voices are none of the training's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from runner.asr import calibration
from runner.asr.language import arpa
from runner.context import Context, Pool, Result, Worker
from runner.execution.failures import Cancelled
from runner.execution.order import JobFunction
from runner.jobs import asr_transcribe
from tests.asr.whisper import tiny_whisper
from tests.jobs.helpers import CLIPS, Fields, Ran, apply, clips, manifest, ran, spec, transcribe
from tests.jobs.test_asr_transcribe import in_digits
from tests.quickstart.corpus import HELD_OUT_VOICES, HERTZ, render
from tests.quickstart.sentences import split
from tests.quickstart.speech import add_noise

# transformers leaves the JSON files it reads to the collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

TRAIN, HELD_OUT = split(train=2000, held_out=300)
LEVELS = (5, 8, 11)  # dB of speech above noise
BEAM = {"beam_size": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text, clips to learn from, and other clips of other sentences to transcribe."""
    made = tmp_path_factory.mktemp("language")
    (made / "text.txt").write_text("\n".join(TRAIN) + "\n", encoding="utf-8")
    for name, sentences, seed in (("dev", HELD_OUT[:30], 1), ("test", HELD_OUT[100:130], 2)):
        rows = []
        for at, said in enumerate(render(sentences, voices=HELD_OUT_VOICES, seed=seed)):
            path = made / f"{name}-{at}.wav"
            soundfile.write(path, add_noise(said.samples, LEVELS[at % 3], 100 * seed + at), HERTZ)
            rows.append({"audio": path.name, "text": said.text})
        manifest(made, rows, f"{name}.jsonl")
    return made


@pytest.fixture(scope="module")
def greedy(folder: Path) -> Ran:
    return transcribe(folder, name="greedy", data={"manifest": "test.jsonl"})


UNSURE = 0.82
FULL: Fields = {
    "data": {"manifest": "test.jsonl", "validation": "dev.jsonl", "text": "text.txt"},
    "decode": BEAM,
    "confidence": {"calibrate": True},
    "route": {"below": UNSURE},
}
TUNED: Fields = {**FULL, "decode": {**BEAM, "tune": True}}


@pytest.fixture(scope="module")
def full(folder: Path) -> Ran:
    """Everything but tuning at once: train, calibrate, transcribe, route."""
    return transcribe(folder, name="full", **FULL)


@pytest.fixture(scope="module")
def tuned(folder: Path) -> Ran:
    """The same with tuned weights."""
    return transcribe(folder, name="tuned", **TUNED)


def report(found: Ran) -> Fields:
    content: Fields = json.loads((found.files.parent / "report.json").read_text("utf-8"))
    return content


def table(found: Ran, title: str) -> list[list[Any]]:
    (rows,) = [t["rows"] for t in report(found)["tables"] if t["title"] == title]
    return list(rows)


def test_a_language_model_lowers_wer_in_noise(greedy: Ran, full: Ran) -> None:
    before, after = greedy.manifest["metrics"]["wer"], full.manifest["metrics"]
    assert before > 0.3, "clean speech would leave nothing to gain"
    assert after["wer"] < 0.7 * before
    assert (after["lm_order"], after["text_sentences"]) == (3, len(TRAIN))
    assert after["lm_perplexity"] == pytest.approx(after["text_perplexity"], rel=0.3)
    assert after["lm_unknown_words"] == 0
    assert ["words", 71] in table(full, "Language model")


def test_with_text_what_is_learned_from_digits_is_what_is_learned_from_words(folder: Path, full: Ran) -> None:
    (folder / "digits.txt").write_text("\n".join(map(in_digits, TRAIN)) + "\n", encoding="utf-8")
    for name in ("dev", "test"):
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()]
        written = [{**row, "text": in_digits(row["text"])} for row in rows]
        assert written != rows
        manifest(folder, written, f"{name}-digits.jsonl")
    data = {"manifest": "test-digits.jsonl", "validation": "dev-digits.jsonl", "text": "digits.txt"}
    made = transcribe(folder, name="digits", **{**FULL, "data": data, "text": {}})
    assert (made.files / "lm.arpa").read_bytes() == (full.files / "lm.arpa").read_bytes()
    assert made.transcripts == full.transcripts, "confidence too: the same calibration"
    said, plain = (json.loads((one.files / "calibration.json").read_text("utf-8"))["decoding"] for one in (made, full))
    assert said == plain, "of the language model only what is in it counts"
    for figure in ("wer", "confidence_ece", "lm_perplexity"):
        assert made.manifest["metrics"][figure] == full.manifest["metrics"][figure]


def test_a_language_model_lowers_wer_on_the_quickstart_s_noisy_clips(tmp_path: Path) -> None:
    names = [path.name for path in CLIPS.glob("noise-*")]
    (tmp_path / "text.txt").write_text("\n".join(TRAIN), encoding="utf-8")
    data = {"manifest": manifest(tmp_path, clips(*names))}
    without = transcribe(tmp_path, data=data).manifest["metrics"]
    with_model = transcribe(tmp_path, data={**data, "text": "text.txt"}, decode=BEAM).manifest["metrics"]
    assert len(names) == 5
    assert with_model["wer"] < without["wer"]


@pytest.mark.slow
def test_weights_are_tuned_on_the_validation_data_and_reported(greedy: Ran, full: Ran, tuned: Ran) -> None:
    metrics = tuned.manifest["metrics"]
    *tried, without = table(tuned, "Tuning")
    assert [metrics["alpha"], metrics["beta"]] == tried[0][:2]
    assert [row[3] for row in tried] == sorted(row[3] for row in tried)
    (given,) = [row for row in tried if row[:2] == [0.5, 1.5]]
    assert tried[0][3] < given[3] < without[3]
    by_chance = 0.03  # five words of the 178 to transcribe: weights were chosen on others
    assert metrics["wer"] <= full.manifest["metrics"]["wer"] + by_chance
    assert metrics["wer"] < 0.65 * greedy.manifest["metrics"]["wer"]


def test_calibration_is_kept_and_makes_confidence_true(greedy: Ran, full: Ran) -> None:
    content = json.loads((full.files / "calibration.json").read_text("utf-8"))
    validation = content["validation"]
    assert validation["recordings"] == 30
    assert 0 < validation["wrong"] < validation["words"]
    assert validation["ece"] < validation["ece_before"]
    assert content["decoding"]["alpha"] == 0.5
    own, made = greedy.manifest["metrics"], full.manifest["metrics"]
    assert own["confidence_ece"] > 0.3, "the model's own confidence says little"
    assert made["confidence_ece"] < 0.15
    assert made["confidence_auroc"] > 0.6
    assert made["confidence_words"] == sum(len(row["words"]) for row in full.rows)
    assert "confidence is calibrated on" in " ".join(report(full)["notes"])
    assert "not calibrated" in " ".join(report(greedy)["notes"])
    assert [plot["title"] for plot in report(full)["plots"]].count("Reliability") == 1


def test_uncertain_recordings_are_listed_worst_first(full: Ran) -> None:
    listed = [json.loads(line) for line in (full.files / "review.jsonl").read_text("utf-8").splitlines()]
    unsure = {row["path"]: row for row in full.rows if row["confidence"] < UNSURE}
    assert 0 < len(listed) < len(full.rows)
    assert {row["path"] for row in listed} == unsure.keys()
    assert [row["confidence"] for row in listed] == sorted(row["confidence"] for row in listed)
    assert full.manifest["metrics"]["review"] == len(listed) == len(table(full, "To review"))
    for row in listed:
        assert row["reason"].startswith(f"confidence {row['confidence']:g} is below {UNSURE}")
        assert row["heard"] == unsure[row["path"]]["text"]
        assert all(word["confidence"] < UNSURE for word in row["words"])


def test_other_jobs_use_what_was_learned(folder: Path, full: Ran) -> None:
    """The trained model, the calibration and the review list, each as a reference to the job that made it."""
    again = spec(
        "again",
        data={"manifest": "artifact:full#review.jsonl"},
        decode={**BEAM, "lm": "artifact:full#lm.arpa"},
        confidence={"calibration": "artifact:full#calibration.json"},
    )
    (result,), store = apply(folder, again)
    found = ran(result, store)
    before = {row["path"]: row for row in full.rows}
    assert {row["path"] for row in found.rows} < before.keys()
    for row in found.rows:
        assert (row["text"], row["words"]) == (before[row["path"]]["text"], before[row["path"]]["words"])
    (note,) = [note for note in report(found)["notes"] if "calibrated" in note]
    assert "by artifact:full#calibration.json" in note
    assert "made with other" not in note, "the model made of the text is the one that decoded"
    assert arpa.read(full.files / "lm.arpa").order == 3


def test_a_calibration_of_the_same_decoding_is_taken_without_doubt(folder: Path, greedy: Ran) -> None:
    data = {"manifest": "test.jsonl"}
    learned = spec("learned", data={**data, "validation": "dev.jsonl"}, confidence={"calibrate": True})
    used = spec("used", data=data, confidence={"calibration": "artifact:learned#calibration.json"})
    results, store = apply(folder, learned, used)
    first, second = (ran(result, store) for result in results)
    assert second.transcripts == first.transcripts
    before, after = greedy.manifest["metrics"], first.manifest["metrics"]
    assert after["confidence_words"] == before["confidence_words"], "the words are the same, what they are worth is not"
    assert after["confidence_ece"] < 0.5 * before["confidence_ece"]
    assert after["confidence_auroc"] == pytest.approx(before["confidence_auroc"], abs=0.03)
    assert "made with other" not in " ".join(report(second)["notes"])


def test_a_calibration_of_other_hotwords_is_doubted(folder: Path) -> None:
    data = {"manifest": manifest(folder, [{"audio": "test-0.wav"}], "one.jsonl")}
    told = {"hotwords": ["óculos"], "hotword_weight": 4, **BEAM}
    learned = {"data": {**data, "validation": "dev.jsonl"}, "decode": told, "confidence": {"calibrate": True}}
    use = {"data": data, "confidence": {"calibration": "artifact:hot-learned#calibration.json"}}
    others = {"same": {}, "words": {"hotwords": ["lâmpada"]}, "weight": {"hotword_weight": 8}}
    used = [spec(f"other-{name}", **use, decode={**told, **other}) for name, other in others.items()]
    (_, *results), store = apply(folder, spec("hot-learned", **learned), *used)
    doubts = ["with other decoding" in " ".join(report(ran(result, store))["notes"]) for result in results]
    assert doubts == [False, True, True]


def test_streams_have_the_model_in_their_final_texts_and_say_what_routing_went_by(folder: Path) -> None:
    found = transcribe(
        folder,
        name="streamed",
        data={"manifest": "test.jsonl", "text": "text.txt"},
        decode=BEAM,
        streaming={},
        route={"below": 0.95},
    )
    metrics = found.manifest["metrics"]
    assert metrics["wer"] < 0.7 * metrics["committed_wer"], "committed words are greedy"
    (note,) = [note for note in report(found)["notes"] if "route.below 0.95" in note]
    assert "not calibrated" in report(found)["notes"][0]
    assert "set confidence.calibrate with data.validation" in note


@pytest.mark.slow
def test_whisper_is_calibrated_on_words_of_the_beam_that_it_transcribes_with(tmp_path: Path) -> None:
    model = {"id": str(tiny_whisper.save(tmp_path / "model"))}
    rows = manifest(tmp_path, clips(*(path.name for path in CLIPS.glob("*.wav"))))
    window = {"length_s": 2.0, "context_s": 0.5}
    more: Fields = {"model": model, "decode": {"beam_size": 3, "language": "pt"}, "window": window}
    plain = transcribe(tmp_path, name="plain", data={"manifest": rows}, **more)
    greedy = transcribe(tmp_path, name="greedy", data={"manifest": rows}, **{**more, "decode": {"language": "pt"}})
    data = {"manifest": rows, "validation": rows}
    found = transcribe(tmp_path, name="calibrated", data=data, confidence={"calibrate": True}, **more)
    made, content = calibration.load(found.files / "calibration.json")
    own = [[word["confidence"] for word in row["words"]] for row in plain.rows]
    assert own != [[word["confidence"] for word in row["words"]] for row in greedy.rows], "beams make no difference"
    assert content["validation"]["words"] == sum(map(len, own)) == found.manifest["metrics"]["confidence_words"]
    assert content["decoding"]["beam_size"] == 3
    for before, row in zip(own, found.rows, strict=True):
        calibrated = [word["confidence"] for word in row["words"]]
        assert calibrated == pytest.approx(made.apply(np.array(before)).tolist(), abs=0.02)
    ece = found.manifest["metrics"]["confidence_ece"], plain.manifest["metrics"]["confidence_ece"]
    assert ece[0] < ece[1]


def test_order_and_price_of_a_word_are_those_of_the_spec(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(TRAIN), encoding="utf-8")
    data = {"manifest": manifest(tmp_path, clips("noise-10db.ogg")), "text": "text.txt"}
    plain, dear = (
        transcribe(tmp_path, name=name, data=data, decode={**BEAM, **more}).manifest["metrics"]
        for name, more in (("plain", {}), ("dear", {"ngram_order": 2, "beta": -20.0}))
    )
    assert (plain["lm_order"], dear["lm_order"]) == (3, 2)
    assert dear["words"] < plain["words"]


def test_hotwords_are_heard_where_they_were_missed(folder: Path, greedy: Ran) -> None:
    (folder / "hot.txt").write_text("Maçãs!\n\naçúcar\n", encoding="utf-8")
    wanted = {"maçãs", "açúcar", "óculos", "lâmpada"}
    found = transcribe(
        folder,
        name="hot",
        data={"manifest": "test.jsonl"},
        decode={**BEAM, "hotwords": ["óculos", "lâmpada"], "hotwords_file": "hot.txt", "hotword_weight": 8},
    )

    def heard(of: Ran) -> int:
        said = [row["text"] for row in map(json.loads, (folder / "test.jsonl").read_text("utf-8").splitlines())]
        pairs = zip(said, of.rows, strict=True)
        return sum(word in wanted and word in row["text"].split() for text, row in pairs for word in text.split())

    assert heard(found) > heard(greedy)


def test_long_recordings_are_joined_and_calibrated_alike(tmp_path: Path) -> None:
    """Recordings in several windows are decoded by the job itself, not by its workers."""
    (tmp_path / "text.txt").write_text("\n".join(TRAIN), encoding="utf-8")
    rows = manifest(tmp_path, clips("long-90s.opus", "noise-10db.ogg", "wav-16k.wav", "near-silence.flac"))
    found = transcribe(
        tmp_path,
        data={"manifest": rows, "text": "text.txt", "validation": rows},
        window={"length_s": 5.0},
        decode=BEAM,
        confidence={"calibrate": True},
    )
    assert found.manifest["metrics"]["wer"] < 0.05
    assert json.loads((found.files / "calibration.json").read_text())["validation"]["words"] > 100
    (note,) = [note for note in report(found)["notes"] if "flattered" in note]
    assert note.startswith("3 recordings"), "a silent one has no text to learn from"


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """A pool that cancels the job after so many answers."""

    inner: Pool
    taken: list[Any]
    most: int
    workers: int = 1

    def imap(self, make: Callable[[], Worker], items: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        for answer in self.inner.imap(make, items):
            if len(self.taken) == self.most:
                raise Cancelled("by the test")
            self.taken.append(answer)
            yield answer


def stopping(taken: list[Any], most: int) -> JobFunction:
    def job(spec_: Any, ctx: Context) -> Result:
        return asr_transcribe.run(spec_, replace(ctx, pool=Stopping(inner=ctx.pool, taken=taken, most=most)))

    return job


@pytest.mark.slow
def test_an_interrupted_job_learns_the_same(folder: Path, tuned: Ran) -> None:
    """Stopped while it hears, while it tunes, and while it transcribes."""
    counts = []
    for most in (1, 40, 70, 10_000):
        taken: list[Any] = []
        found = transcribe(folder, name="stopped", store="stopped", job=stopping(taken, most), **TUNED)
        counts.append(len(taken))
    assert found.result.action == "created"
    assert found.result.attempts == 4
    assert counts[-1] < 70 + 40, "what was heard and tuned is not done again"
    for name in ("transcripts.jsonl", "calibration.json", "lm.arpa", "review.jsonl"):
        assert (found.files / name).read_bytes() == (tuned.files / name).read_bytes(), name


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"data": {"validation": "bare.jsonl"}, "confidence": {"calibrate": True}}, "data.validation has a text"),
        ({"data": {"validation": "few.jsonl"}, "confidence": {"calibrate": True}}, "to calibrate confidence on"),
        ({"data": {"text": "empty.txt"}, "decode": BEAM}, "'empty.txt' holds no words: one sentence a line"),
        ({"data": {"text": "test-0.wav"}, "decode": BEAM}, "cannot be read as UTF-8 text"),
        (
            {"decode": {**BEAM, "lm": "text.txt"}},
            "no ARPA file; to train a model on a text, give it as data.text",
        ),
        ({"decode": {**BEAM, "lm": "upper.arpa"}}, "can spell none of the 2 words of the language model, such as 'OI'"),
        ({"decode": {**BEAM, "hotwords": ["agente 007"]}}, "no symbols to spell the hotwords '007'"),
        ({"confidence": {"calibration": "dev.jsonl"}}, "dev.jsonl is no calibration"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_missing_is_said_before_the_work(folder: Path, fields: Fields, said: str) -> None:
    (folder / "empty.txt").write_text("\n ...\n")
    (folder / "upper.arpa").write_text("\\data\\\nngram 1=2\n\\1-grams:\n-0.3\tOI\n-0.3\tTU\n\\end\\\n")
    manifest(folder, [{"audio": "dev-0.wav"}], "bare.jsonl")
    manifest(folder, [{"audio": "dev-0.wav", "text": "um dois"}], "few.jsonl")
    data = {"manifest": "test.jsonl", **fields.get("data", {})}
    found = transcribe(folder, name="wrong", **{**fields, "data": data})
    assert found.result.action == "failed"
    assert said in (found.result.message)
    assert not (found.files / "transcripts.jsonl").exists()
