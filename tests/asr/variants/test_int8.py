"""Products in int8 against fp32, and that no batch changes a bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from runner.asr.quantise import int8, ranges
from runner.asr.quantise.int8 import DynamicProduct, Last, StaticProduct, Step
from runner.asr.quantise.rounding import int8 as rounded

pytestmark = pytest.mark.skipif(not int8.usable("cpu"), reason="this CPU has no int8 products (VNNI, AMX)")


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(96, 40).requires_grad_(False)


def frames(count: int = 30) -> torch.Tensor:
    """Of very different loudness, and one that is silent."""
    x = torch.randn(1, count, 96, generator=torch.Generator().manual_seed(1))
    x *= torch.logspace(-2, 2, count)[:, None]
    x[:, 3] = 0
    return x


def off(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Of the worst frame, as a share of that frame's size."""
    errors = (got - wanted).norm(dim=-1) / wanted.norm(dim=-1)
    return float(errors.max())


def step_of(x: torch.Tensor) -> Step:
    seen = ranges.Seen()
    seen.add(x)
    return seen.step()


def dynamic(plain: nn.Linear) -> DynamicProduct:
    return DynamicProduct(rounded(plain.weight), plain.bias, Last())


def test_dynamic_scales_hold_for_loud_and_quiet_frames_alike() -> None:
    plain, x = linear(), frames()
    product = dynamic(plain)
    assert off(product(x), plain(x)) < 0.03
    assert torch.allclose(product(x)[0, 3], plain.bias, atol=1e-6)  # silence


def test_no_frame_depends_on_the_frames_beside_it() -> None:
    plain, x = linear(), frames()
    product = dynamic(plain)
    alone = torch.cat([product(x[:, i : i + 1]) for i in range(x.shape[1])], dim=1)
    assert torch.equal(alone, product(x))


def test_nan_stays_nan() -> None:
    x = frames()
    x[0, 7, 5] = torch.nan
    assert dynamic(linear())(x)[0, 7].isnan().all()


def test_static_scales_from_what_was_heard() -> None:
    plain = linear()
    x = torch.randn(1, 200, 96, generator=torch.Generator().manual_seed(2))
    step = step_of(x)
    product = StaticProduct(rounded(plain.weight), plain.bias, Last(), step=step)
    assert off(product(x), plain(x)) < 0.03
    assert torch.equal(torch.cat([product(x[:, :50]), product(x[:, 50:])], dim=1), product(x))


def test_what_is_louder_than_calibration_is_cut_to_its_end() -> None:
    plain = linear()
    product = StaticProduct(rounded(plain.weight), plain.bias, Last(), step=Step(scale=1 / 128, zero=128))
    loud = torch.full((1, 1, 96), 50.0)
    assert torch.allclose(product(loud), product(torch.full((1, 1, 96), 127 / 128)))


def test_gelu_and_the_next_layers_bytes_are_made_within_the_product() -> None:
    first, second = linear(), nn.Linear(40, 8).requires_grad_(False)
    x = torch.randn(1, 100, 96, generator=torch.Generator().manual_seed(3))
    middle = nn.functional.gelu(first(x))
    last = Last()
    one = StaticProduct(rounded(first.weight), first.bias, last, step=step_of(x))
    two = StaticProduct(rounded(second.weight), second.bias, last, step=step_of(middle))
    one.to_step, one.gelu = two.step, True
    assert one(x).dtype == torch.uint8
    assert off(two(one(x)), second(middle)) < 0.06


def test_a_range_leaves_out_what_is_very_rare() -> None:
    seen = ranges.Seen()
    values = torch.randn(1_000_000, generator=torch.Generator().manual_seed(4))
    values[12_345] = 60.0
    seen.add(values)
    assert (seen.high, seen.step().scale * 255 < 40) == (60.0, True)  # 29: from there on more range costs more


@pytest.mark.parametrize("width", [768, 1024])
@pytest.mark.parametrize("frames", [515, 999])
def test_every_feature_has_its_part_in_the_range(width: int, frames: int) -> None:
    x = torch.randn(1, frames, width, generator=torch.Generator().manual_seed(5))
    wide = x[0, :, 1]
    wide *= 17
    step = step_of(x)
    kept = (torch.round(wide / step.scale) + step.zero).clamp(0, 255).sub(step.zero) * step.scale
    assert (kept - wide).norm() < 0.1 * wide.norm(), "it is cut off"


def test_zero_is_exact_and_what_is_never_below_it_wastes_nothing_there() -> None:
    assert step_of(torch.tensor([2.0, 3.0])).zero == 0
    step = step_of(torch.linspace(-1, 3, 1000))
    assert abs(step.zero - 64) <= 1
