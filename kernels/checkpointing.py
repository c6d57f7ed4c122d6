"""Activation checkpointing of one model's layers, whose inputs may wait for backward in pinned host memory.

A checkpointed layer keeps its input alone and computes the rest again in backward (Chen et al. 2016, arXiv 1604.06174).
Offloaded, the input goes to the host while the layer computes, on a stream of its own, and comes back while backward is
at the layer above: two inputs at a time lie on the device, however many layers there are. The last layer's stays, since
backward begins with it. The mathematics is torch's own: `torch.utils.checkpoint` without reentrance, which keeps random
states and autocast, runs in pieces, several times or never, and calls each gradient's hooks once, as DDP and ZeRO ask.

What is in flight belongs to the one model: `Offloading`. A `Kept` input belongs to the graph of its forward and goes
with it, after however many backwards, so that nothing is to be cleared when one of them is broken off.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

SMALLEST = 2**20  # bytes of an input that is worth a copy: 20 us at 50 GB/s, as long as it takes to ask for one
OFFLOADED = "cuda"  # devices whose memory the inputs leave
FIELDS = ("gradient_checkpointing", "_gradient_checkpointing_func")  # what transformers' layers look at


class Checkpointed:
    """Layers of one model that are checkpointed until `undo`, or to the end of a `with`."""

    def __init__(self, layers: dict[str, nn.Module], offloading: Offloading | None, why: str) -> None:
        self.layers = tuple(layers)  # their names
        self.offload = offloading is not None
        self.why = why  # inputs are offloaded, or not
        self._offloading = offloading
        self._before = [
            (layer, {name: vars(layer)[name] for name in FIELDS if name in vars(layer)}) for layer in layers.values()
        ]

    @property
    def offloaded_bytes(self) -> int:
        """Copied to the host so far."""
        return 0 if self._offloading is None else self._offloading.copied_bytes

    def undo(self) -> None:
        """Layers are as they were. Graphs of earlier forwards stay valid."""
        for layer, before in self._before:
            for name in FIELDS:
                vars(layer).pop(name, None)
            vars(layer).update(before)
        self._before = []
        if self._offloading is not None:
            self._offloading.settle()

    def __enter__(self) -> Checkpointed:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()


def checkpointed(model: nn.Module, *, offload: bool, smallest: int = SMALLEST) -> Checkpointed:
    """Checkpoint every layer of `model` that knows how (transformers' decoder and encoder layers), in training mode.

    Args:
        model: one instance, wrapped by PEFT or not; its class and other instances stay as they are.
        offload: inputs of at least `smallest` bytes wait in host memory; on a CPU they lie there anyway.

    Raises ValueError for a model without such layers, RuntimeError where some are checkpointed already.
    """
    layers = dict(checkpointable(model))
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no layer that can be checkpointed: it needs transformers' layers."
        )
    if taken := [name for name, layer in layers.items() if layer.gradient_checkpointing]:
        raise RuntimeError(
            f"{taken[0]!r} is checkpointed already: undo that, or leave gradient_checkpointing_enable out."
        )
    devices = sorted({parameter.device.type for parameter in model.parameters()})
    moves = offload and OFFLOADED in devices
    offloading = Offloading(smallest=smallest) if moves else None
    if moves:
        why = f"inputs of {len(layers) - 1} layers wait in pinned host memory, the last one's on the device"
    else:
        why = f"the model lies on {', '.join(devices)}: inputs are in host memory" if offload else "not asked for"
    done = Checkpointed(layers, offloading, why)
    last = next(reversed(layers))
    for name, layer in layers.items():
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = plain if offloading is None else partial(offloading.run, move=name != last)
    return done


def checkpointable(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, GradientCheckpointingLayer]]:
    """The outermost layers that transformers can checkpoint: one within another would be computed a third time."""
    for name, child in model.named_children():
        if isinstance(child, GradientCheckpointingLayer):
            yield prefix + name, child
        else:
            yield from checkpointable(child, f"{prefix}{name}.")


def plain(function: Callable[..., Any], *inputs: Any) -> Any:
    """`function(*inputs)`, computed again in backward."""
    return checkpoint(function, *inputs, use_reentrant=False)


class Offloading:
    """What the checkpointed layers of one model share: a lane of copies for each of its devices."""

    def __init__(self, *, smallest: int = SMALLEST) -> None:
        self.smallest = smallest
        self.copied_bytes = 0
        self._lanes: dict[torch.device, Lane] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Offloading:
        return type(self)(smallest=self.smallest)  # the copy of a model has copies in flight of its own: none

    def run(self, function: Callable[..., Any], *inputs: Any, move: bool) -> Any:
        """`function(*inputs)`, computed again in backward, from a first input that waits on the host if `move`."""
        first = inputs[0] if inputs else None
        if not (isinstance(first, Tensor) and torch.is_grad_enabled() and self.worth(first)):
            return plain(function, *inputs)
        # the graph holds `pack`, which therefore must not hold the input
        lane, place, shape = self.lane(first.device), first.data_ptr(), first.shape

        def pack(x: Tensor) -> Tensor | Kept:
            # checkpoint saves every input, some shared by all layers: only the hidden states go
            if x.data_ptr() != place or x.shape != shape:
                return x
            self.copied_bytes += x.nbytes if move else 0
            return lane.keep(x, move=move)

        with saved_tensors_hooks(pack, lambda kept: kept.restored() if isinstance(kept, Kept) else kept):
            return plain(function, *inputs)

    def worth(self, x: Tensor) -> bool:
        return x.is_cuda and x.is_contiguous() and x.nbytes >= self.smallest

    def lane(self, device: torch.device) -> Lane:
        if device not in self._lanes:
            self._lanes[device] = Lane(device)
        return self._lanes[device]

    def settle(self) -> None:
        """Nothing is in flight afterwards, and nothing held."""
        for lane in self._lanes.values():
            lane.settle()


class Kept:
    """One layer's input from forward to backward: on the host, or (the last layer's) where it was."""

    def __init__(self, lane: Lane, x: Tensor, *, moved: bool, before: weakref.ref[Kept] | None) -> None:
        self.lane, self.x, self.moved, self.before = lane, x, moved, before
        self.version = x._version

    def restored(self) -> Tensor:
        return self.lane.restore(self)


class Lane:
    """The copies of one device: at most one on its way out and one on its way in, in the order they were asked for.

    Memory of the device belongs to the stream that computes. What the copying stream reads or writes is held here until
    the computing stream has waited for it, so that the allocator gives it to nobody else meanwhile; torch's own
    `record_stream` would hold it until the host happens to look.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: torch.cuda.Stream | None = None
        self.latest: weakref.ref[Kept] | None = None
        self.leaving: tuple[Tensor, int, Any] | None = None  # source, its version, the end of its copy
        self.coming: tuple[Kept, Tensor, Any] | None = None

    def keep(self, x: Tensor, *, move: bool) -> Kept:
        """`x`, which its copy on the host stands for from now on if `move`."""
        self.settle()
        if move:
            host = self.host_memory(x)
            self.leaving = (x, x._version, self.copy(x, host))
        kept = Kept(self, host if move else x, moved=move, before=self.latest)
        self.latest = weakref.ref(kept)
        return kept

    def restore(self, kept: Kept) -> Tensor:
        """What was kept, on its device; the one kept before it is fetched meanwhile, since backward needs it next."""
        self.settle_leaving()
        if not kept.moved:
            if kept.x._version != kept.version:
                raise changed()
            x = kept.x
        else:
            if self.coming is None or self.coming[0] is not kept:
                self.settle()
                self.coming = self.fetch(kept)
            _, x, arrived = self.coming
            self.wait(arrived)
            self.coming = None
        before = None if kept.before is None else kept.before()
        if before is not None and before.moved and self.coming is None:
            self.coming = self.fetch(before)
        return x

    def fetch(self, kept: Kept) -> tuple[Kept, Tensor, Any]:
        x = torch.empty(kept.x.shape, dtype=kept.x.dtype, device=self.device)
        return kept, x, self.copy(kept.x, x)

    def settle(self) -> None:
        """Hold nothing: an input that came and was not asked for (backward was broken off) is let go."""
        self.settle_leaving()
        if self.coming is not None:
            self.wait(self.coming[2])
            self.coming = None

    def settle_leaving(self) -> None:
        if self.leaving is None:
            return
        x, version, left = self.leaving
        self.wait(left)
        self.leaving = None
        if x._version != version:
            raise changed()

    def host_memory(self, x: Tensor) -> Tensor:
        return torch.empty(x.shape, dtype=x.dtype, pin_memory=True)  # torch keeps freed ones for the next step

    def copy(self, source: Tensor, into: Tensor) -> Any:
        """Begin to copy, after all that computes now; the event of its end."""
        if self.stream is None:
            self.stream = torch.cuda.Stream(self.device)
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            into.copy_(source, non_blocking=True)
            return self.stream.record_event()

    def wait(self, event: Any) -> None:
        """What computes from now on does so after `event`."""
        torch.cuda.current_stream(self.device).wait_event(event)


def changed() -> RuntimeError:
    return RuntimeError(
        "A checkpointed layer wrote into its own input, from which backward would compute: copy it there."
    )
