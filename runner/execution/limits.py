"""What a process may use: set before the libraries that read it are loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")


def apply(*, threads: int, gpus: float) -> None:
    """Set thread counts, and hide the GPUs from work that asked for none.

    ``num_gpus=0`` does not hide GPUs by itself: a CPU job would take one that belongs to another.
    """
    os.environ.update(dict.fromkeys(THREADS, str(threads)) | ({} if gpus else {"CUDA_VISIBLE_DEVICES": ""}))


@contextlib.contextmanager
def applied(*, threads: int, gpus: float) -> Iterator[None]:
    """``apply`` for the code inside; what was set before comes back, for the next step of this process."""
    names = (*THREADS, "CUDA_VISIBLE_DEVICES")
    before = {name: os.environ.get(name) for name in names}
    apply(threads=threads, gpus=gpus)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
