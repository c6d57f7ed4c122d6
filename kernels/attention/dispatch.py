"""The attention function "runner" of transformers: it chooses a backend for each shape of call, and writes down why.

Everything of one model instance hangs on the name that its configs carry (`Name`), which is equal to "runner": so mask
functions, which are given a config, and layers, which have one, find their own session, and none is global.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import AttentionInterface, AttentionMaskInterface

from runner.kernels import calibration
from runner.kernels.attention import flash, flex, ours, plain, sdpa
from runner.kernels.attention.call import Backend, Call, Inputs, Pages, call_of
from runner.kernels.attention.plan import Plan, Tokens, given, of_mask_function, unmasked

NAME = "runner"
# In the order of the written rule, which decides on CPUs; on GPUs times do, and the order where they are equal.
# One thread and two of a Xeon, fp32, 8 heads of 64 with 2 for keys, forward / both ways in ms: a packed row of 32
# documents to 2094 tokens takes 32 / 102 one by one, 323 / 1002 under a dense mask, 1095 / 3753 in plain torch; one of
# 2048 tokens 67 / 328 without a mask, 204 / 576 with one, 1013 / 2972 plain.
BACKENDS: Mapping[str, Backend] = {
    one.name: one
    for one in (
        ours.PAGED,
        ours.VARLEN,
        flash.FLASH_3,
        flash.FLASH_4,
        flash.FLASH_2,
        sdpa.CUDNN,
        sdpa.FLASH,
        sdpa.EFFICIENT,
        sdpa.DOCUMENTS,
        sdpa.ANY,
        plain.PLAIN_DOCUMENTS,
        plain.PLAIN,
        sdpa.MATH,
        flex.FLEX,
    )
}
HOLD_SCORES = {plain.PLAIN.name, sdpa.MATH.name}
SCORES = 2**31  # bytes of scores, past which trying takes memory that the step around it may need
ONE_BY_ONE = {sdpa.DOCUMENTS.name, plain.PLAIN_DOCUMENTS.name}
# Scores of a row up to which sinks under a mask are plain torch's on CPUs. 2 rows, 8 heads of 64 with 2 for keys, fp32,
# one thread of a Xeon, both ways in ms, transformers' own, plain and sdpa: 32 tokens 1.6, 1.4, 1.9; 128 tokens 24, 15,
# 16; 256 tokens 103, 80, 51; 1024 tokens 2345, 1999, 805. One query to 1024 keys, forward: 2.5, 2.3, 16
FEW = 128 * 128


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the ledger: one shape of call, what computes it, and why nothing else does."""

    call: str
    backend: str
    why: str
    refused: Mapping[str, str]  # backend: why it cannot
    milliseconds: Mapping[str, float]  # backend: its measured time, where any was


@dataclass(kw_only=True)
class Session:
    """What belongs to one model instance."""

    force: str | None = None
    with_triton: bool | None = None
    ledger: list[Entry] = field(default_factory=list)
    _chosen: dict[Call, Backend] = field(default_factory=dict)
    _shared: dict[Any, Tokens] = field(default_factory=dict)
    _kinds: set[Any] = field(default_factory=set)

    def __deepcopy__(self, memo: Any) -> Session:
        """A copied model begins a ledger of its own."""
        return Session(force=self.force, with_triton=self.with_triton)

    def plan(self, **arguments: Any) -> Plan:
        """The plan of a mask that transformers asks for.

        The kinds of masks of one forward pass come one after the other and cut the same rows: they share one reading
        of the device. A kind that comes again begins the next pass.
        """

        def tokens(ids: Tensor | None, padding: Tensor | None) -> Tokens:
            given = [(name, x) for name, x in (("ids", ids), ("padding", padding)) if x is not None]
            key = tuple((name, x.shape, x.device) for name, x in given)
            return self._shared.setdefault(key, Tokens(ids=ids, padding=padding))

        function = arguments.get("mask_function")
        kind = (
            getattr(function, "__code__", function),
            arguments.get("local_size"),
            arguments["q_length"],
            arguments["kv_length"],
        )
        if kind in self._kinds:
            self._kinds.clear()
            self._shared.clear()
        self._kinds.add(kind)
        return of_mask_function(tokens=tokens, **arguments)

    def run(self, inputs: Inputs) -> Tensor:
        """Attention [B, Q, H, E] by the backend chosen for this shape of call."""
        self._kinds.clear()  # layers run: the masks of this pass are made
        self._shared.clear()
        # the layers of a step mostly differ in nothing: 10 us a layer instead of 30
        sizes = tuple(x.shape for x in inputs.tensors)
        absent = inputs.sinks is None, inputs.pages is None
        alike = (sizes, inputs.query.dtype, inputs.dropout > 0, inputs.softcap, inputs.backward, *absent)
        backend: Backend | None = inputs.plan.chosen.get(alike)
        if backend is None:
            call = call_of(inputs)
            backend = self._chosen.get(call) or self._choose(call, inputs)
            self._chosen[call] = inputs.plan.chosen[alike] = backend
        return backend.run(inputs)

    def _choose(self, call: Call, inputs: Inputs) -> Backend:
        refused = {name: why for name, one in BACKENDS.items() if (why := one.refusal(call)) is not None}
        if self.force is not None:
            if self.force in refused:
                raise RuntimeError(
                    f"attention by {self.force!r} was asked for and cannot be had: {refused[self.force]} "
                    f"({call.words()}); ask for another or for none"
                )
            choice = calibration.Choice(name=self.force, note="asked for")
        else:
            heavy = _heavy(refused, call)
            refused |= heavy
            able = _ordered([name for name in BACKENDS if name not in refused], call)
            if not able:
                reasons = "; ".join(f"{name}: {why}" for name, why in refused.items())
                raise RuntimeError(f"no attention for {call.words()}: {reasons}")
            choice = _quickest(able, list(heavy), call, inputs)
        refused |= choice.excluded
        self.ledger.append(
            Entry(
                call=call.words(),
                backend=choice.name,
                why=choice.note,
                refused=refused,
                milliseconds=choice.milliseconds,
            )
        )
        return BACKENDS[choice.name]


def _quickest(able: list[str], heavy: list[str], call: Call, inputs: Inputs) -> calibration.Choice:
    """The measured choice among `able`; among `heavy` where none of those works."""
    try:
        candidates = {name: _timed(BACKENDS[name], inputs) for name in able}
        return calibration.choose("attention", call.shape(), candidates, device=inputs.query.device)
    except torch.AcceleratorError:
        raise  # the device is lost to this process
    except RuntimeError:
        if not heavy:
            raise
        candidates = {name: _timed(BACKENDS[name], inputs) for name in heavy}
        return calibration.choose("attention", call.shape(), candidates, device=inputs.query.device)


def _heavy(refused: Mapping[str, str], call: Call) -> dict[str, str]:
    """On GPUs, those that hold whole score matrices, where these are large and anything else can: not even tried."""
    scores = 4 * call.rows * call.heads * call.queries * call.keys  # bytes in fp32
    others = set(BACKENDS) - set(refused) - HOLD_SCORES
    if call.device != "cuda" or scores <= SCORES or not others:
        return {}
    why = f"would hold {scores / 2**30:.0f} GiB of scores"
    return {name: why for name in HOLD_SCORES if name not in refused}


def _ordered(able: list[str], call: Call) -> list[str]:
    """The written rule. Pages are read by nothing else; documents one by one come first only where they pay.

    Sinks under a mask go to plain torch while scores are few, or there is one query.
    """
    if call.pages or call.device == "cuda" or call.pays:
        return able
    few = call.queries == 1 or call.queries * call.keys <= FEW
    simple = call.sinks and call.mask != "free" and few
    return sorted(able, key=lambda name: (name in ONE_BY_ONE, simple and name != plain.PLAIN.name))


def _timed(backend: Backend, inputs: Inputs) -> Any:
    """The call on copies without history, both ways where it will be differentiated."""

    def both_ways() -> None:
        copies = {name: x.detach().requires_grad_() for name, x in inputs.differentiable.items()}
        # hooks of a checkpoint around the layer would take what is saved here for the layer's own
        with torch.enable_grad(), saved_tensors_hooks(lambda x: x, lambda x: x):
            out = backend.run(Inputs(**{**inputs.__dict__, **copies}))
            torch.autograd.grad(out, list(copies.values()), torch.ones_like(out))

    return both_ways if inputs.backward else lambda: backend.run(inputs)


class Name(str):
    """Equal to "runner", and carries the session of the one model whose configs hold it."""

    __slots__ = ("session",)
    session: Session

    @staticmethod
    def of(session: Session) -> Name:
        name = Name(NAME)
        name.session = session
        return name

    def __deepcopy__(self, memo: Any) -> Name:
        return Name.of(self.session.__deepcopy__(memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return Name.of, (Session(force=self.session.force, with_triton=self.session.with_triton),)


def register() -> None:
    """Make "runner" known to transformers; again and again does no harm."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)


def mask(**arguments: Any) -> Plan:
    """The mask function: a `Plan`; a plan that was made before, as generation does, is taken as it is."""
    prepared = arguments.get("attention_mask")
    if isinstance(prepared, Plan):
        return prepared
    return _session(arguments["config"]).plan(**arguments)


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Plan | Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    s_aux: Tensor | None = None,
    pages: Mapping[int, Pages] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The attention function: [B, Q, H, E] of query [B, H, Q, D], key [B, G, K, D] and value [B, G, K, E].

    `cu_seq_lens_q`, `cu_seq_lens_k`, `max_length_q` and `max_length_k` of a data collator cut one packed row into
    documents; `s_aux` are the sinks of gpt-oss, [H]; `pages` are the paged keys and values of each layer by its
    number. Raises ValueError for what no backend knows, and RuntimeError where the one that is forced cannot be had.
    """
    session = _session(module.config)
    for unknown in ("position_bias", "cache"):
        if options.get(unknown) is not None:
            raise ValueError(f"{type(module).__name__} hands {unknown!r} to attention, which no backend here takes")
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    plan, key, value = _plan(attention_mask, query, key, value, causal=causal)
    if options.get("cu_seq_lens_q") is not None:
        plan = _cut(plan, options)
    inputs = Inputs(
        query=query,
        key=key,
        value=value,
        plan=plan,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        dropout=dropout,
        softcap=softcap,
        sinks=s_aux,
        pages=None if pages is None else pages[int(cast(int, module.layer_idx))],
        with_triton=session.with_triton,
        training=module.training,
    )
    return session.run(inputs), None


def _session(config: Any) -> Session:
    name = config._attn_implementation
    if not isinstance(name, Name):
        raise RuntimeError(f"attention {NAME!r} belongs to one model: use_attention(model) turns it on, not its config")
    return name.session


def _plan(
    mask: Plan | Tensor | None, query: Tensor, key: Tensor, value: Tensor, *, causal: bool
) -> tuple[Plan, Tensor, Tensor]:
    """The plan of a call, and its keys: without a mask and causal only those count that queries stand at."""
    batch, _, queries, _ = query.shape
    keys = key.shape[2]
    if isinstance(mask, Tensor):
        return given(mask, batch=batch, queries=queries, keys=keys), key, value
    if mask is None:
        if causal and 1 < queries < keys:
            key, value, keys = key[:, :, :queries], value[:, :, :queries], queries
        plan = unmasked(batch=batch, queries=queries, keys=keys, causal=causal, window=None, device=query.device)
        return plan, key, value
    if mask.shape != (batch, 1, queries, keys) or mask.device != query.device:
        raise ValueError(
            f"the mask was made for {mask.shape} on {mask.device}, attention has {(batch, 1, queries, keys)} on "
            f"{query.device}: a model that is spread over devices, or changes its masks, needs its own attention"
        )
    return mask, key, value


def _cut(plan: Plan, options: Mapping[str, Any]) -> Plan:
    """The plan over the documents that a data collator names."""
    if plan.shape[0] != 1:
        raise ValueError(f"cu_seq_lens_q cuts one packed row, there are {plan.shape[0]}: pack them into one")
    queries = options["cu_seq_lens_q"]
    keys = queries if options.get("cu_seq_lens_k") is None else options["cu_seq_lens_k"]
    longest_query = options.get("max_length_q")
    longest_query = int(queries.diff().max()) if longest_query is None else int(longest_query)
    longest_key = options.get("max_length_k")
    longest_key = longest_query if longest_key is None else int(longest_key)
    return plan.cut(queries, keys, longest_query=longest_query, longest_key=longest_key)
