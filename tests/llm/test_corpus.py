"""A corpus is what was written, whole or not there, and no larger in memory than what is read of it."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from runner.llm import corpus
from runner.llm.corpus import Corpus
from runner.llm.document import Document
from runner.schema.errors import JobError
from tests.llm.packing.made import documents, restored, stored, tokens

LENGTHS = [3, 1, 12, 2, 7]


def test_documents_come_back_as_they_were(tmp_path: Path) -> None:
    written = documents(LENGTHS)
    written[1] = Document(place="über.jsonl:2", ids=np.zeros(1, dtype=np.int32), learned=np.zeros(1, dtype=bool))
    made = corpus.build(iter(written), tmp_path / "made")
    assert len(made) == 5
    assert made.lengths.tolist() == LENGTHS
    assert made.targets.tolist() == [int(one.learned.sum()) for one in written]
    for index, one in enumerate(written):
        assert tokens(restored(made, index)) == tokens(one)
        assert made.place(index) == one.place
        assert restored(made, index).ids.dtype == np.int32


def test_some_of_the_documents_are_a_corpus_too_in_every_process(tmp_path: Path) -> None:
    whole = stored(tmp_path / "made", LENGTHS)
    part = pickle.loads(pickle.dumps(whole.take([4, 0, 2]).take([2, 0])))
    assert part.lengths.tolist() == [12, 7]
    assert [part.place(0), part.place(1)] == ["a.jsonl:2", "a.jsonl:4"]
    assert len(pickle.dumps(whole)) < 500
    assert tokens(restored(pickle.loads(pickle.dumps(whole)), 2)) == tokens(restored(whole, 2))


def test_a_corpus_may_be_empty(tmp_path: Path) -> None:
    made = corpus.build([], tmp_path / "made")
    assert len(made) == 0 and len(made.targets) == 0


def test_what_stood_there_is_replaced_by_a_whole_corpus_alone(tmp_path: Path) -> None:
    stored(tmp_path / "made", LENGTHS)

    def broken() -> Iterator[Document]:
        yield from documents([5])
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        corpus.build(broken(), tmp_path / "made")
    assert Corpus(tmp_path / "made").lengths.tolist() == LENGTHS
    assert stored(tmp_path / "made", [4]).lengths.tolist() == [4]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_kill_leaves_no_corpus(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom runner.llm import corpus\n"
        "from tests.llm.packing.made import documents\n"
        "def some():\n    yield from documents([9] * 1000)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "corpus.build(some(), Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "made")], env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(JobError, match="holds no corpus: build it first"):
        Corpus(tmp_path / "made")
    assert len(stored(tmp_path / "made", LENGTHS)) == 5


def test_another_version_is_refused(tmp_path: Path) -> None:
    made = stored(tmp_path / "made", LENGTHS)
    told = made.folder / "corpus.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"version": 7}))
    with pytest.raises(JobError, match="version 7, this program reads 1; remove that folder") as caught:
        Corpus(made.folder)
    assert caught.value.failure == "DataInvalid"


def test_a_share_is_held_back_of_all_together(tmp_path: Path) -> None:
    made = [stored(tmp_path / "a", [5] * 30), stored(tmp_path / "b", [6] * 10)]
    train, back = corpus.hold_back(made, share=0.25, seed=3)
    assert sum(map(len, back)) == 10 and sum(map(len, train)) == 30
    for whole, *parts in zip(made, train, back, strict=True):
        places = [part.place(i) for part in parts for i in range(len(part))]
        assert sorted(places) == sorted(whole.place(i) for i in range(len(whole)))
    again = corpus.hold_back(made, share=0.25, seed=3)[1]
    assert [one.place(0) for one in back] == [one.place(0) for one in again]
    assert sum(map(len, corpus.hold_back(made, share=1e-9, seed=0)[1])) == 1


def test_all_cannot_be_held_back(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"validation_share 0\.5 of 1 documents leaves nothing to learn from"):
        corpus.hold_back([stored(tmp_path / "a", [5])], share=0.5, seed=0)


def test_tokens_are_not_held_in_memory(tmp_path: Path) -> None:
    """A corpus of 40 million tokens (160 MB) is written and read in a tenth of that."""
    code = (
        "import resource, sys\nimport numpy as np\nfrom pathlib import Path\n"
        "from runner.llm import corpus\nfrom runner.llm.document import Document\n"
        "one = Document(place='a', ids=np.ones(40_000, dtype=np.int32), learned=np.zeros(40_000, dtype=bool))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "made = corpus.build((one for _ in range(1000)), Path(sys.argv[1]))\n"
        "assert made.coded(999)[-1] == ~1\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "made")]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=True)
    assert int(done.stdout) < 16_000  # KiB
