"""What a job prints and logs goes to `log.txt`: Python's streams, the descriptors of C libraries, logging, warnings."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

FILE = "log.txt"
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextlib.contextmanager
def captured(path: Path) -> Iterator[Callable[[str], None]]:
    """Send all output of this process to the end of ``path``; yields a function that adds one line of our own."""
    with (
        path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1) as log,
        contextlib.ExitStack() as undo,
    ):
        for descriptor in (1, 2):
            undo.enter_context(_redirected(descriptor, log.fileno()))
        undo.enter_context(contextlib.redirect_stdout(log))
        undo.enter_context(contextlib.redirect_stderr(log))
        undo.enter_context(_logging_to(logging.StreamHandler(log)))
        yield lambda text: print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=log)


def redirect_for_ever(path: Path) -> None:
    """Send the output of this process, one of a pool, to the end of ``path`` until it ends."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    logging.basicConfig(level=logging.INFO, format=FORMAT, stream=sys.stderr)
    logging.captureWarnings(True)


@contextlib.contextmanager
def _redirected(descriptor: int, target: int) -> Iterator[None]:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    saved = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)


@contextlib.contextmanager
def _logging_to(handler: logging.Handler) -> Iterator[None]:
    handler.setFormatter(logging.Formatter(FORMAT))
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.setLevel(level)
        root.removeHandler(handler)
