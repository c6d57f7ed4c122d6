"""`Job`: what every kind has in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from runner.schema.block import Block
from runner.schema.compute import Compute
from runner.schema.marks import BLOCK, NEUTRAL


class Job(Block):
    """One spec: one YAML document of one kind."""

    tasks: ClassVar[tuple[str, ...]] = ()  # what its model must be able to do; families of the registry name theirs
    begins: ClassVar[bool] = False  # whether it also takes a model that was only pretrained: no head, or no vocabulary
    code_version: ClassVar[int] = 1  # part of the fingerprint; raised when the same spec would give other files

    apiVersion: Annotated[Literal["runner/v1"], NEUTRAL] = "runner/v1"  # noqa: N815 (the name users know from Kubernetes)
    """Version of the spec language; left out means runner/v1, for ever."""

    name: Annotated[str, NEUTRAL, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", examples=["podcast-pt"])]
    """Name of the artifact: lower-case letters, digits and hyphens, at most 63 characters."""

    description: Annotated[str | None, NEUTRAL, Field(min_length=1, max_length=1000)] = None
    """What it is, in your words; the report begins with it."""

    compute: Annotated[Compute, BLOCK] = Compute()
    """Resources that the step asks for."""

    def remarks(self) -> tuple[str, ...]:
        """What a plan should say of this spec on this machine, beside why it is carried out; must load nothing."""
        return ()

    def lacks(self, path: str) -> str | None:
        """Why its artifact will not hold ``path``, as far as that is known before it is made; None where it may."""
        return None

    def unfit(self, facts: Mapping[str, Any]) -> str | None:
        """Why a model, of which the registry knows ``facts``, cannot do what this spec asks for; None where it can."""
        return None

    def training(self) -> Mapping[str, Any] | None:
        """What a plan forecasts a training run's memory from, and chooses how processes share it; None for no such run.

        Keys: seq_len, rows, rank (of LoRA, or None), precision, quantize, whole (whether embeddings are trained
        beside an adapter), checkpointing, chunked (whether logits are never whole), optimizer, strategy, offload.
        """
        return None
