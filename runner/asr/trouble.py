"""What can be wrong with one recording: a status, a class and a sentence. Never stops a job."""

from __future__ import annotations

from typing import Literal

Status = Literal["ok", "empty", "too_short", "decode_error", "out_of_memory", "failed", "unaligned"]


class RecordingError(Exception):
    """One recording cannot be transcribed, aligned or embedded. ``name`` is the stable class that users filter by."""

    def __init__(self, status: Status, name: str, message: str) -> None:
        super().__init__(message)
        self.status: Status = status
        self.name = name
        self.message = message

    def __reduce__(self) -> tuple[type[RecordingError], tuple[Status, str, str]]:
        return RecordingError, (self.status, self.name, self.message)


def unreadable(name: str, message: str) -> RecordingError:
    """A recording whose sound cannot be had."""
    return RecordingError("decode_error", name, message)
