"""Which way of sharing a model is chosen, and what the words say of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from runner.registry.forecast import forecast
from runner.registry.strategy import Demand, choose, needs, stage_of, working
from runner.schema.errors import PlanError
from tests.registry.test_forecast import LLAMA

GB = 10**9


def demand(**changes: Any) -> Demand:
    found = forecast(LLAMA, seq_len=4096, **changes)
    return Demand(
        forecast=found, layers=LLAMA["layers"], working=working(found, checkpointing="required", chunked=True)
    )


def bytes_of(name: Any, processes: int, offload: Any = "none", **changes: Any) -> float:
    return needs(name, demand(**changes), processes=processes, offload=offload) / GB


def test_one_process_shares_nothing() -> None:
    assert choose("auto", processes=1).name == "none"
    assert choose("ddp", processes=1).name == "none"


def test_the_plainest_that_fits() -> None:
    """All weights of 8 billion: 128 GB of state, and 32 GB more for the gradients that DDP sends."""
    roomy = choose("auto", processes=8, demand=demand(), memory=300 * GB)
    assert (roomy.name, roomy.fits) == ("ddp", True)
    tight = choose("auto", processes=8, demand=demand(), memory=80 * GB)
    assert (tight.name, tight.fits) == ("fsdp2", True)
    assert tight.why.startswith("ddp would need 164 GB, fsdp2 shared among 8 needs ")
    assert tight.why.endswith(" of the 80 GB that a process has")
    none = choose("auto", processes=2, demand=demand(), memory=40 * GB)
    assert (none.name, none.fits) == ("fsdp2", False)
    assert "the least of all, and a process has 40 GB; distribution.offload leaves some of it" in none.why
    assert choose("auto", processes=8, demand=demand(rank=16), memory=80 * GB).name == "ddp"


def test_without_a_forecast_it_says_so() -> None:
    blind = choose("auto", processes=2)
    assert (blind.name, blind.fits) == ("ddp", None)
    assert blind.why == "the plainest of ddp, fsdp2; the forecast of its memory is not known yet"
    assert choose("auto", processes=2, demand=demand()).why.endswith("compute.accelerator tells it, such as A100-80G")


def test_what_is_shared_falls_with_the_processes() -> None:
    state = 16 * LLAMA["parameters"] / GB
    for name in ("zero2", "fsdp2", "zero3"):
        assert bytes_of(name, 16) < bytes_of(name, 4) < bytes_of("ddp", 4) == bytes_of("ddp", 16)
    assert bytes_of("fsdp2", 8) < bytes_of("zero3", 8) < bytes_of("zero2", 8)
    assert bytes_of("ddp", 2) > state
    for name in ("zero2", "zero3"):
        assert bytes_of(name, 4, "optimizer") < bytes_of(name, 4)
    for name in ("fsdp2", "zero3"):
        assert bytes_of(name, 4, "all") == bytes_of(name, 2, "all") < bytes_of(name, 4)


def test_a_quantised_base_is_in_every_process() -> None:
    base = demand(rank=16, quantize="nf4").forecast["weights"] / GB
    assert bytes_of("fsdp2", 64, rank=16, quantize="nf4") > base - 0.2
    assert bytes_of("fsdp2", 64, rank=16) < bytes_of("ddp", 64, rank=16) / 3


def test_checkpointing_and_chunks_are_less_to_hold() -> None:
    found = forecast(LLAMA, seq_len=4096)
    assert working(found, checkpointing="off", chunked=False) > 5 * working(found, checkpointing="auto", chunked=True)


def test_offloading_takes_who_has_it() -> None:
    assert [choose("auto", processes=2, offload=one).name for one in ("none", "optimizer", "all")] == [
        "ddp",
        "zero2",
        "fsdp2",
    ]
    assert choose("auto", processes=2, offload="all", optimizer="paged_adamw_8bit").name == "zero3"


def test_the_users_stage_decides() -> None:
    assert choose("auto", processes=2, stage=3).name == "zero3"
    assert choose("zero2", processes=2, stage=2).name == "zero2"


@pytest.mark.parametrize(
    "wanted, more, message",
    [
        ("zero3", {"processes": 1}, "distribution.strategy 'zero3' needs several processes: set compute.workers to 2"),
        ("auto", {"processes": 1, "offload": "all"}, "distribution.offload needs several processes"),
        ("auto", {"processes": 1, "stage": 2}, "distribution.deepspeed needs several processes"),
        ("ddp", {"offload": "all"}, "'ddp' has no offload 'all', only none: set strategy to fsdp2 or zero3"),
        (
            "zero2",
            {"optimizer": "adafactor"},
            "'zero2' cannot train with train.optimizer 'adafactor': it would see one",
        ),
        ("fsdp2", {"optimizer": "adafactor"}, "'fsdp2' cannot train with train.optimizer 'adafactor': transformers'"),
        ("auto", {"optimizer": "adafactor", "offload": "all"}, "offload 'all' cannot be had with train.optimizer"),
        ("fsdp2", {"optimizer": "adamw_8bit"}, "'fsdp2' cannot train with train.optimizer 'adamw_8bit'"),
        ("auto", {"optimizer": "adafactor", "offload": "optimizer"}, "offload 'optimizer' cannot be had with"),
        ("zero3", {"stage": 2}, "strategy is 'zero3' and the file of distribution.deepspeed says stage 2"),
        ("auto", {"stage": 1}, "stage must be 2 or 3, got 1"),
        ("auto", {"stage": "x"}, "stage must be 2 or 3, got 'x'"),
    ],
)
def test_what_cannot_be_had(wanted: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        choose(wanted, **{"processes": 2, **more})


def test_a_stage_is_read_from_the_users_file(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    for text, stage in (('{"zero_optimization": {"stage": 3}}', 3), ("{}", None), ('{"zero_optimization": {}}', None)):
        path.write_text(text)
        assert stage_of(path) == stage
    for text in ("{", "[]", '{"zero_optimization": 3}', "\udcff"):
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(PlanError, match=r"distribution\.deepspeed: 'ds\.json'"):
            stage_of(path)


@pytest.mark.parametrize("stage", [[3], {"stage": 3}, True, "3", 1, 3.0])
def test_what_is_no_stage_is_told(tmp_path: Path, stage: Any) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    with pytest.raises(PlanError, match=re.escape(f"zero_optimization.stage must be 2 or 3, got {stage!r}")):
        choose("auto", processes=2, stage=stage_of(path))
