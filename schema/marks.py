"""What a field means to the plan. Every field of every block carries exactly one mark; a test refuses a field without.

The fingerprint of a step is made of the fields marked RESULT and of the digests of the fields that name inputs.
"""

from __future__ import annotations

from enum import Enum


class Mark(Enum):
    """How a field takes part in the fingerprint."""

    RESULT = "its value decides the result"
    NEUTRAL = "it never changes the result: names, resources, logs, gates"
    MODEL = "a model: its commit or digest decides the result"
    FILE = "one file: its content decides the result"
    FILES = "patterns or folders of files: their paths and digests decide the result"
    MANIFEST = "a manifest: its digest and those of the files it names decide the result"
    CORPUS = "a corpus of texts: the digests of its files, or its commit on a hub, decide the result"
    BLOCK = "a nested block: its own fields are marked"


RESULT, NEUTRAL, MODEL, FILE, FILES, MANIFEST, CORPUS, BLOCK = Mark
