"""Put kernels into one model: asked for by name, checked on the real modules, written down, and undone without a trace.

Nothing but attributes of this model's own modules is touched: no class, no file of transformers, no other model, not
even one made from the same config. Either all that was asked for goes in, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from runner.kernels import launch
from runner.kernels.families import families_of
from runner.kernels.forwards import attention, causal, experts, gated, lora, norms, rotary
from runner.kernels.ledger import Ledger, Line, Wanted
from runner.kernels.places import Edit, Family, Forward, Request, UnfitError, named

Patch = Callable[[nn.Module, Request], list[Edit]]

BEGIN = {
    "attention": attention.begin,
    "lora_linear": lora.begin,
}  # what is begun for the model as a whole, where it has places
# In the order in which places are looked for: a norm that qk_norm_rope takes is not rms_norm's any more.
FORWARDS: Mapping[str, Patch] = {
    "qk_norm_rope": rotary.norm_and_turn,
    "rope": rotary.turn,
    "rms_norm": norms.rms,
    "layer_norm": norms.layer,
    "swiglu": gated.swi,
    "geglu": gated.ge,
    "linear_cross_entropy": causal.loss_of_hidden,
    "attention": attention.suits,
    "experts": experts.grouped,
    "lora_linear": lora.linear,
}
# Nothing to gain without Triton. Forward and backward of our plain references took as many times as long on a CPU as
# what transformers' modules do there (fp32, bf16; 1024 x 1024, heads of 64, one thread): rms_norm 1.1, 1.2; layer_norm
# 8, 7; swiglu and geglu 1.0, 1.0; rope 0.9, 1.7; qk_norm_rope 0.9, 1.2. Experts there are transformers' own grouped_mm,
# which it takes by default in every family that has experts.
GPU_ONLY = {"qk_norm_rope", "rope", "rms_norm", "layer_norm", "swiglu", "geglu", "experts"}
REPLICATE = "_replicate_for_data_parallel"
CLASHES = (("rope", "qk_norm_rope"),)  # both turn queries and keys


class PatchError(ValueError):
    """A patch that was required cannot be had, or patches that cannot be had together; nothing was changed."""


@dataclass(kw_only=True)
class Found:
    """What one patch would change, and the places that cannot take it."""

    what: str
    wanted: Wanted
    family: Family | None = None  # of the model as a whole
    edits: dict[str, list[Edit]] = field(default_factory=dict)  # by path
    unfit: dict[str, str] = field(default_factory=dict)  # path -> why
    why: str = ""  # why there are none at all
    begin: Callable[[], Callable[[], None]] | None = None
    end: Callable[[], None] | None = None  # of what was begun


@dataclass(kw_only=True)
class Applied:
    """Patches that are in a model."""

    model: nn.Module
    ledger: Ledger
    found: dict[str, Found]

    def undo(self, what: str | None = None) -> None:
        """Take one patch out again, or all; then raises PatchError where others have replaced our forwards since."""
        kept = []
        for name in [what] if what else list(self.found):
            if stuck := _out(self.found[name]):
                kept += stuck  # still ours to undo, once what was put over it is gone
            else:
                del self.found[name]
        if not any(isinstance(vars(part).get("forward"), Forward) for part in self.model.modules()):
            self.model.__dict__.pop(REPLICATE, None)
        _must_be_ours(kept)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """All patches out while the block runs."""
        found = list(self.found.values())
        edits = [(path, edit) for one in found for path, edits in one.edits.items() for edit in edits]
        _must_be_ours([path for path, edit in edits if edit.module.__dict__.get(edit.name) is not edit.value])
        for one in found:
            _out(one)
        held = self.model.__dict__
        guard = {REPLICATE: held.pop(REPLICATE)} if REPLICATE in held else {}
        try:
            yield
        finally:
            _put(found)
            held.update(guard)

    @contextmanager
    def only(self, what: str) -> Iterator[None]:
        """One patch in while the block runs, where all are out."""
        _put([self.found[what]])
        try:
            yield
        finally:
            _out(self.found[what])


@contextmanager
def patched(model: nn.Module, wanted: Mapping[str, Wanted], *, with_triton: bool | None = None) -> Iterator[Ledger]:
    """`model` with the patches `wanted` while the block runs; see `apply`."""
    applied = apply(model, wanted, with_triton=with_triton)
    try:
        yield applied.ledger
    finally:
        applied.undo()


def apply(model: nn.Module, wanted: Mapping[str, Wanted], *, with_triton: bool | None = None) -> Applied:
    """Put patches into `model`: name -> required, preferred or off. It may be wrapped by PEFT.

    By default kernels run where the model lies on a GPU, and what gains nothing elsewhere is skipped. With
    `with_triton=False` all goes in with the plain references (to find faults), with True all with Triton.
    Raises PatchError where something required cannot be had, where patches clash and for unknown names.
    """
    if unknown := sorted(set(wanted) - set(FORWARDS)):
        raise PatchError(f"Unknown patches {unknown}. Patches: {', '.join(sorted(FORWARDS))}.")
    if bad := {name: word for name, word in wanted.items() if word not in {"required", "preferred", "off"}}:
        raise PatchError(f"Patches are 'required', 'preferred' or 'off', got {bad!r}.")
    families = families_of(model)
    shared: dict[Any, Any] = {}
    found: dict[str, Found] = {}
    for name in FORWARDS:
        if wanted.get(name, "off") != "off":
            found[name] = _find(name, wanted[name], model, families, with_triton, shared, _taken(found))
    _must_not_clash(found)
    for one in found.values():
        _must_be_had(one, model)
    _put(list(found.values()))
    model.__dict__[REPLICATE] = no_replicas
    lines = [line for name in wanted for line in _lines(name, wanted[name], found.get(name))]
    return Applied(model=model, ledger=Ledger(lines=lines), found=found)


def _taken(found: Mapping[str, Found]) -> set[int]:
    """The modules that are part of a larger place already."""
    edits = [edits[1:] for one in found.values() for edits in one.edits.values()]
    return {id(edit.module) for rest in edits for edit in rest}


def _find(
    name: str,
    wanted: Wanted,
    model: nn.Module,
    families: list[tuple[str, nn.Module, Family]],
    with_triton: bool | None,
    shared: dict[Any, Any],
    taken: set[int],
) -> Found:
    found = Found(what=name, wanted=wanted)
    if not families:
        found.why = f"no family is known for {type(model).__name__}"
    elif without := [family.without[name] for _, _, family in families if name in family.without]:
        found.why = without[0]
    else:
        found.why = _why_not_here(name, model, with_triton)
    if found.why:
        return found
    found.family = families[0][2]
    if name in BEGIN:
        found.begin = BEGIN[name](model, with_triton)
    for path, root, family in families:
        request = Request(patch=name, model=model, family=family, with_triton=with_triton, shared=shared)
        adapter = name == lora.PATCH  # which go wherever the user has put them
        classes, outside = (lora.CLASSES, "") if adapter else (family.places.get(name, ()), family.outside)
        for inside, module in named(root, classes, outside):
            if id(module) not in taken:
                _look(found, ".".join(filter(None, (path, inside))), module, request)
    if not found.edits and not found.unfit:
        found.why = "the model has no place for it"
    return found


def _why_not_here(name: str, model: nn.Module, with_triton: bool | None) -> str:
    """What keeps a kernel from running where the model lies; nothing where it may."""
    if with_triton is not False and name in GPU_ONLY | {"linear_cross_entropy"}:
        dtypes = {x.dtype for x in model.parameters() if x.is_floating_point()} - set(launch.DTYPES)
        if with_triton and (why := _no_triton()):
            return why
        if dtypes and (with_triton or _on_gpu(model)):
            return f"kernels take fp32, bf16 and fp16, and parameters are {', '.join(map(str, dtypes))}"
    if with_triton is None and not _on_gpu(model) and name in GPU_ONLY:
        return "no GPU: torch's own is as fast"
    if with_triton is None and _on_gpu(model) and name in GPU_ONLY | {"linear_cross_entropy"}:
        return _no_triton()
    return ""


def _no_triton() -> str:
    try:
        launch.use_triton(torch.empty(0), True)
    except RuntimeError as error:
        return str(error)
    return ""


def _on_gpu(model: nn.Module) -> bool:
    return any(x.is_cuda for x in model.parameters())


def _look(found: Found, path: str, module: nn.Module, request: Request) -> None:
    try:
        edits = FORWARDS[found.what](module, request)
    except UnfitError as unfit:
        found.unfit[path] = str(unfit)
        return
    if edits or found.begin is not None:
        found.edits[path] = edits


def _must_not_clash(found: Mapping[str, Found]) -> None:
    for one, other in CLASHES:
        if one in found and other in found and (both := set(found[one].edits) & set(found[other].edits)):
            weaker = one if found[one].wanted == "preferred" else other
            if found[weaker].wanted == "required":
                raise PatchError(
                    f"{one} and {other} are both required at {min(both)!r} and do the same: set one of them off."
                )
            for path in both:
                del found[weaker].edits[path]
                found[weaker].unfit[path] = f"{other if weaker == one else one} does the same there"
    seen: dict[tuple[int, str], str] = {}
    for name, place in ((name, edit) for name, one in found.items() for edits in one.edits.values() for edit in edits):
        key = (id(place.module), place.name)
        if seen.setdefault(key, name) != name:
            raise PatchError(f"{name} and {seen[key]} both want {type(place.module).__name__}: set one of them off.")


def _must_be_had(found: Found, model: nn.Module) -> None:
    if found.wanted != "required":
        return
    remedy = "Set it to preferred or off, or give it what it needs."
    if found.unfit:
        path, why = next(iter(found.unfit.items()))
        more = f" (and {len(found.unfit) - 1} more places)" if len(found.unfit) > 1 else ""
        raise PatchError(f"{found.what} is required and {path!r} cannot take it: {why}{more}. {remedy}")
    if not found.edits:
        raise PatchError(
            f"{found.what} is required for {type(model).__name__} and cannot be had: {found.why}. {remedy}"
        )


def _must_be_ours(kept: list[str]) -> None:
    if kept:
        more = f" and {len(kept) - 1} more" if len(kept) > 1 else ""
        where = repr(kept[0]) if kept[0] else "the model"
        raise PatchError(f"Others have put forwards over ours since, at {where}{more}: undo those, then this again.")


def no_replicas() -> nn.Module:
    """What nn.DataParallel calls: its replicas would all run the forwards of the first device's modules."""
    raise PatchError("A patched model cannot go under nn.DataParallel: start a process for each GPU (torchrun).")


def _put(found: list[Found]) -> None:
    try:
        for one in found:
            for edit in (edit for edits in one.edits.values() for edit in edits):
                edit.module.__dict__[edit.name] = edit.value
            if one.begin is not None and one.edits:
                one.end = one.begin()
    except BaseException:
        for one in found:
            _out(one)
        raise


def _out(found: Found) -> list[str]:
    """Take one patch out; the places that others have changed since."""
    if found.end is not None:
        found.end()
        found.end = None
    return [path for path, edits in found.edits.items() for edit in reversed(edits) if not _undo(edit)]


def _undo(edit: Edit) -> bool:
    """Whether what was ours is gone."""
    held = edit.module.__dict__
    if held.get("_original_forward") is edit.value:  # accelerate has put autocast around it and keeps it there
        del held["_original_forward"], held[edit.name]
    elif held.get(edit.name, edit.value) is not edit.value:
        return False
    else:
        held.pop(edit.name, None)
    return True


def _lines(name: str, wanted: Wanted, found: Found | None) -> Iterator[Line]:
    if found is None:
        yield Line(what=name, wanted=wanted, applied=False, why="off")
        return
    if found.edits:
        yield Line(what=name, wanted=wanted, applied=True, why="as wanted", places=tuple(found.edits))
    reasons: dict[str, list[str]] = {}
    for path, why in found.unfit.items():
        reasons.setdefault(why, []).append(path)
    for why, paths in reasons.items():
        yield Line(what=name, wanted=wanted, applied=False, why=why, places=tuple(paths))
    if found.why:
        yield Line(what=name, wanted=wanted, applied=False, why=found.why)
