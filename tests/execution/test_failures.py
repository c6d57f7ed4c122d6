"""Classes of failure: each exception has one, and each class says what it calls for."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import get_args

import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError

from runner.execution import failures
from runner.execution.failures import RETRIES, Cancelled, OutOfTime
from runner.schema.errors import ConflictError, FailureClass, InfeasibleError, JobError, PlanError, StoreError

UNNAMED = f"to the store or to {os.environ.get('TMPDIR', '/tmp')!r} (TMPDIR)"


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "OutOfMemoryGpu"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), "OutOfMemoryHost"),
        (MemoryError(), "OutOfMemoryHost"),
        (OSError(errno.ENOMEM, "x"), "OutOfMemoryHost"),
        (OSError(errno.ENOSPC, "x"), "DiskFull"),
        (_caused(StoreError("can't publish"), OSError(errno.ENOSPC, "x")), "DiskFull"),
        (_caused(StoreError("can't publish"), OSError(errno.EROFS, "x")), "Infeasible"),
        (_caused(StoreError("can't publish"), PermissionError(errno.EACCES, "x")), "Infeasible"),
        (PermissionError(errno.EACCES, "x"), "UserCode"),
        (FileNotFoundError(errno.ENOENT, "x"), "NotFound"),
        (PlanError("x"), "NotFound"),
        (EntryNotFoundError("x"), "NotFound"),
        (SafetensorError("x"), "ModelInvalid"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "DiskFull"),
        (SafetensorError("Error while serializing: I/O error: Disk quota exceeded (os error 122)"), "DiskFull"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "DiskFull"),
        (JobError("x", failure="DataInvalid"), "DataInvalid"),
        (_caused(RuntimeError("x"), JobError("x", failure="NaN")), "NaN"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), "DataInvalid"),
        (FloatingPointError("x"), "NaN"),
        (OutOfTime("x"), "Timeout"),
        (TimeoutError("x"), "Timeout"),
        (ConnectionResetError("x"), "ControlPlaneLost"),
        (InfeasibleError("x"), "Infeasible"),
        (ZeroDivisionError("x"), "UserCode"),
        (SystemExit(3), "UserCode"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_each_exception_has_its_class(error: BaseException, failure: FailureClass) -> None:
    assert failures.classify(error) == failure


@pytest.mark.slow
def test_exceptions_of_ray_are_known_by_name() -> None:
    named = [name.rpartition(".")[2] for name in failures.BY_NAME if name.startswith("ray.")]
    assert len(named) > 5
    # not in this process: ray reads its environment when it is imported, and other tests set that first
    code = "import sys, ray.exceptions; print([name for name in sys.argv[1:] if not hasattr(ray.exceptions, name)])"
    done = subprocess.run([sys.executable, "-c", code, *named], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert failures.classify(first) == "UserCode"


def test_every_class_has_its_row() -> None:
    assert set(RETRIES) == set(get_args(FailureClass))


def test_waiting_doubles_up_to_a_minute() -> None:
    assert [failures.wait_s("OutOfMemoryGpu", n) for n in (1, 2, 3, 5, 50)] == [5, 10, 20, 60, 60]
    assert failures.wait_s("DataInvalid", 3) == 0


def test_what_stops_an_attempt_is_no_exception_that_a_job_may_swallow() -> None:
    assert not issubclass(Cancelled, Exception)
    assert not issubclass(OutOfTime, Exception)


def test_neither_a_spent_timeout_nor_a_conflict_is_tried_again() -> None:
    assert not failures.may_repeat(OutOfTime("x"))
    assert not failures.may_repeat(ConflictError("x"))
    assert failures.may_repeat(JobError("the hub is away", failure="Timeout"))


def test_messages_are_one_line() -> None:
    assert failures.describe(ValueError("a\nb")) == "ValueError: a b"
    assert failures.describe(JobError("clip 7 is empty", failure="DataInvalid")) == "clip 7 is empty"
    assert failures.describe(KeyboardInterrupt()) == "KeyboardInterrupt"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), f"can't write {UNNAMED}: No space left on device; "),
        (OSError(errno.EDQUOT, "Quota exceeded", "/s/a.txt"), "can't write '/s/a.txt': Quota exceeded; "),
        (
            SafetensorError("No space left on device (os error 28)"),
            f"can't write {UNNAMED}: No space left on device (Saf",
        ),
    ],
    ids=["no file", "file", "no number"],
)
def test_a_full_disk_is_told_with_what_to_do(error: Exception, told: str) -> None:
    message = failures.describe(error)
    assert message.startswith(told)
    assert "runner artifacts gc --delete" in message


def test_a_full_disk_is_told_where_no_temporary_file_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        message = failures.describe(OSError(errno.ENOSPC, "No space left on device"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert message.startswith(f"can't write {UNNAMED}: No space left on device; ")


def test_what_torch_says_of_a_write_that_was_cut_short_is_a_full_disk(tmp_path: Path) -> None:
    """A limit on file sizes stands for the disk: torch says the same of both, and gives no number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(RuntimeError) as caught:
            torch.save(torch.ones(100_000), tmp_path / "weights.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert failures.classify(caught.value) == "DiskFull"


def test_an_error_of_ours_that_speaks_of_space_keeps_its_class() -> None:
    assert failures.classify(JobError("the hub says: no space left on device", failure="NotFound")) == "NotFound"
    assert failures.classify(_caused(StoreError("no space left on device"), OSError(errno.EROFS, "x"))) == "Infeasible"
