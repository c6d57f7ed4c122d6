"""`compute`: the resources a step asks for. None of it changes the result."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from runner.schema.block import Block
from runner.schema.marks import NEUTRAL


class Compute(Block):
    """Resources of one step."""

    gpus: Annotated[float, NEUTRAL, Field(ge=0, le=1024)] = 0.0
    """GPUs per worker; a fraction shares one GPU."""

    cpus: Annotated[int | None, NEUTRAL, Field(ge=1, le=4096)] = None
    """CPU cores per worker, which is also its number of threads; left out: all cores of the machine, shared among the
    workers."""

    memory_gb: Annotated[float | None, NEUTRAL, Field(gt=0, le=65536)] = None
    """Memory per worker in GB (10^9 bytes); left out: not limited."""

    accelerator: Annotated[str | None, NEUTRAL, Field(min_length=1, max_length=63)] = None
    """GPU type, for example `H100` or `A100-80G`; left out: any."""

    workers: Annotated[int, NEUTRAL, Field(ge=1, le=10000)] = 1
    """Processes that share the work."""

    timeout: Annotated[str, NEUTRAL, Field(pattern=r"^[1-9][0-9]{0,5}(s|m|h|d)$")] = "24h"
    """Limit on one attempt's duration: a whole number and `s`, `m`, `h` or `d`."""

    retries: Annotated[int, NEUTRAL, Field(ge=0, le=100)] = 2
    """Further attempts after a failure whose class allows another try."""
