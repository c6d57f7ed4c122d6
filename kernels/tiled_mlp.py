"""MLPs over tiles of the sequence: what lies between their projections exists for one tile at a time.

Rows of an MLP are independent, so that y = [mlp(x_1), mlp(x_2), ...]. Forward keeps x alone; backward computes each
tile again and goes through it at once, so that the widest activations cost tile_rows * F instead of tokens * F, for one
more forward of the MLP (arXiv 2506.13996, Arctic long sequence training, has the idea). Weight gradients, of adapters
too, are summed over the tiles in fp32 in the order of the sequence, and handed to autograd once, whose hooks (DDP, ZeRO
1 and 2) therefore see each of them once. Random states and autocast are those of forward. Shapes: N rows, H features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

TILE_ROWS = 4096  # a matrix unit is busy with it, and 3 activations of 14,336 features in bf16 take 336 MiB


class Tiled:
    """MLPs of one model that go tile by tile until `undo`, or to the end of a `with`."""

    def __init__(self, mlps: Mapping[str, nn.Module]) -> None:
        self.mlps = tuple(mlps)  # their names
        self._before = [(mlp, {k: v for k, v in vars(mlp).items() if k == "forward"}) for mlp in mlps.values()]

    def undo(self) -> None:
        """MLPs are as they were. Graphs of earlier forwards stay valid."""
        for mlp, before in self._before:
            vars(mlp).pop("forward", None)
            vars(mlp).update(before)
        self._before = []

    def __enter__(self) -> Tiled:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()


def tiled(mlps: Mapping[str, nn.Module], *, tile_rows: int = TILE_ROWS) -> Tiled:
    """Let each of `mlps` (by name, of one model) work on at most `tile_rows` rows at a time.

    An MLP must take one tensor [..., H] whose rows are independent, and give one tensor with as many rows; its forward
    of the moment is kept, whatever has been put into it. Raises ValueError for no MLP or no rows, and for one
    that is tiled.
    """
    if not mlps or tile_rows < 1:
        raise ValueError(f"tiled got {len(mlps)} MLPs and tile_rows={tile_rows}: it takes at least one of each.")
    if twice := [name for name, mlp in mlps.items() if isinstance(vars(mlp).get("forward"), _TiledForward)]:
        raise ValueError(f"{twice[0]!r} goes tile by tile already: undo that first.")
    done = Tiled(mlps)
    for mlp in mlps.values():
        mlp.forward = _TiledForward(mlp, mlp.forward, tile_rows)
    return done


class _TiledForward:
    """Stands in for `forward` of one instance."""

    def __init__(self, mlp: nn.Module, forward: Callable[[Tensor], Tensor], tile_rows: int) -> None:
        self.mlp, self.forward, self.tile_rows = mlp, forward, tile_rows

    def __call__(self, x: Tensor) -> Tensor:
        return in_tiles(self.mlp, x, tile_rows=self.tile_rows, forward=self.forward)


def in_tiles(
    mlp: nn.Module, x: Tensor, *, tile_rows: int = TILE_ROWS, forward: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """`mlp(x)` for x [..., H], tile by tile; as ever where x has no more rows than a tile.

    Raises RuntimeError under ZeRO 3, where autograd knows parameters by sizes that they have not; TypeError where the
    MLP gives anything but a tensor with the rows of x.
    """
    forward = mlp if forward is None else forward
    if x[..., 0].numel() <= tile_rows:
        return forward(x)
    parameters = [parameter for parameter in mlp.parameters() if parameter.requires_grad]
    if any(hasattr(parameter, "ds_id") for parameter in parameters):
        raise RuntimeError("A tiled MLP cannot have parameters that ZeRO 3 has parted: use ZeRO 2, or leave tiles out.")
    y: Tensor = _InTiles.apply(_Replay(forward, x, tile_rows), x, *parameters)
    return y


class _Replay:
    """How tiles are computed: in forward, and the same way again in backward."""

    def __init__(self, forward: Callable[[Tensor], Tensor], x: Tensor, tile_rows: int) -> None:
        self.forward, self.tile_rows = forward, tile_rows
        self.leading = (1,) * (x.dim() - 2)  # a tile is a batch of one where x is a batch
        device = x.device.type
        # a weight cast for one tile must not serve the next: the first was cast without a graph, or its graph has gone
        self.autocast: dict[str, Any] = {
            "device_type": device,
            "dtype": torch.get_autocast_dtype(device),
            "enabled": torch.is_autocast_enabled(device),
            "cache_enabled": False,
        }
        self.device = x.device
        self.random_states = (torch.get_rng_state(), torch.cuda.get_rng_state(x.device) if x.is_cuda else None)

    def tiles(self, x_NH: Tensor) -> Iterator[tuple[slice, Tensor]]:
        for first in range(0, x_NH.shape[0], self.tile_rows):
            here = slice(first, first + self.tile_rows)
            yield here, x_NH[here].view(*self.leading, -1, x_NH.shape[-1])

    def computed(self, tile: Tensor) -> Tensor:
        y = self.forward(tile)
        if not isinstance(y, Tensor) or y.shape[:-1] != tile.shape[:-1]:
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(f"A tiled MLP must give a tensor {(*tile.shape[:-1], 'H')}, got {got}: leave tiles out.")
        return y.reshape(-1, y.shape[-1])

    @contextmanager
    def as_in_forward(self) -> Iterator[None]:
        """Random states and autocast of forward, and those of now afterwards."""
        host, device = self.random_states
        with torch.random.fork_rng(devices=[] if device is None else [self.device]), torch.autocast(**self.autocast):
            torch.set_rng_state(host)
            if device is not None:
                torch.cuda.set_rng_state(device, self.device)
            yield


class _InTiles(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, replay: _Replay, x: Tensor, *parameters: nn.Parameter) -> Tensor:
        x_NH = x.reshape(-1, x.shape[-1])
        y_NH: Tensor | None = None
        with torch.autocast(**replay.autocast):
            for here, tile in replay.tiles(x_NH):
                part = replay.computed(tile)
                y_NH = part.new_empty(x_NH.shape[0], part.shape[-1]) if y_NH is None else y_NH
                y_NH[here] = part
        assert y_NH is not None
        ctx.save_for_backward(x, *parameters)
        ctx.replay = replay
        return y_NH.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        _, x_wanted, *wanted = ctx.needs_input_grad
        x_NH, dy_NH = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        dx_NH = torch.empty_like(x_NH) if x_wanted else None
        asked = [parameter for parameter, want in zip(parameters, wanted, strict=True) if want]
        sums: list[Tensor | None] = [None] * len(asked)
        with ctx.replay.as_in_forward(), torch.enable_grad():
            for here, tile in ctx.replay.tiles(x_NH):
                leaf = tile.detach().requires_grad_(x_wanted)
                inputs = [*asked, leaf] if x_wanted else asked
                y = ctx.replay.computed(leaf)
                parts = list(torch.autograd.grad(y, inputs, dy_NH[here], allow_unused=True))
                if dx_NH is not None:
                    dx = parts.pop()
                    dx_NH[here] = 0 if dx is None else dx.view(-1, x_NH.shape[-1])
                sums = [added(total, part) for total, part in zip(sums, parts, strict=True)]
        done = iter(sums)
        found = [next(done) if want else None for want in wanted]
        given = [None if g is None else g.to(p.dtype) for g, p in zip(found, parameters, strict=True)]
        return None, None if dx_NH is None else dx_NH.view(x.shape), *given


def added(total: Tensor | None, part: Tensor | None) -> Tensor | None:
    """The sum so far, in fp32 at least; None where a parameter has had no part yet."""
    if part is None:
        return total
    if total is None:
        return part.to(torch.promote_types(part.dtype, torch.float32))
    return total.add_(part)
