"""What holds for all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# A shell without job control starts what runs in its background with SIGINT ignored, and every process below inherits
# that: the tests of Ctrl-C would wait for ever. A handled signal is at its default again in the programs we start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Triton reads this when it is imported, which transformers does long before the tests of the kernels are collected.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# torch reads this once, at the first product on a GPU of the process: without it deterministic products are refused.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
