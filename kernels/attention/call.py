"""What a choice among backends depends on, and what every backend is: what it cannot do, and how it is called.

Shapes: B rows, H heads of queries, G of keys and values, Q queries and K keys a row, D features of queries and keys, E
of values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from runner.kernels.attention.plan import Documents, Plan
from runner.kernels.launch import power_of_two, use_triton

# What one more call of torch's attention costs, in scores that it must spare. Dense and one by one, both ways in ms, of
# 8 heads of 32 in fp32 on one thread of a Xeon: 12k scores a document 2.55 and 2.60, 16k 15.9 and 16.8, 49k 12.2 and
# 9.1, 198k 24.6 and 15.2, 3.9 million 264 and 31
A_CALL = 20000
INT32 = 1 << 31


@dataclass(frozen=True, kw_only=True)
class Pages:
    """Keys and values of one layer in pages; see `paged_attention`."""

    k_pages: Tensor  # [pages, tokens, G, D]
    v_pages: Tensor
    block_table: Tensor  # [B, entries]
    lengths: Tensor  # [B]


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """One call of attention."""

    query: Tensor  # [B, H, Q, D]
    key: Tensor  # [B, G, K, D]
    value: Tensor  # [B, G, K, E]
    plan: Plan
    scale: float
    dropout: float = 0.0
    softcap: float | None = None
    sinks: Tensor | None = None  # [H], a score of each head that adds nothing: gpt-oss
    pages: Pages | None = None
    with_triton: bool | None = None
    training: bool = False

    @property
    def documents(self) -> Documents:
        """For backends that refuse masks."""
        assert isinstance(self.plan.layout, Documents)
        return self.plan.layout

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.query, self.key, self.value

    @property
    def differentiable(self) -> dict[str, Tensor]:
        """All that may be asked for gradients, by its name here."""
        sinks = {} if self.sinks is None else {"sinks": self.sinks}
        return {"query": self.query, "key": self.key, "value": self.value} | sinks

    @property
    def backward(self) -> bool:
        """Whether gradients will be asked for. Reentrant checkpoints run without them first, and again with them."""
        return self.training or (torch.is_grad_enabled() and any(x.requires_grad for x in self.differentiable.values()))


@dataclass(frozen=True, kw_only=True)
class Call:
    """The shape of a call; sizes are rounded up to powers of two, so that calls of a kind are one line of a ledger."""

    device: str
    capability: int  # of a GPU: 90 is Hopper's
    triton: bool
    dtype: str
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    rows: int
    queries: int
    keys: int
    documents: int
    longest: int
    mask: str  # free | documents | why it has to be dense
    causal: bool
    window: int | None
    softcap: float | None
    sinks: bool
    dropout: bool
    backward: bool
    pages: bool
    overflows: bool  # the int32 indices of FlashAttention-2's backward pass
    pays: bool  # documents one by one rather than under a dense mask

    def shape(self) -> Mapping[str, int | str]:
        """All of it, as calibration takes it."""
        return {name: value if isinstance(value, int) else str(value) for name, value in asdict(self).items()}

    def words(self) -> str:
        """All of it, for a ledger."""
        kind = "causal" if self.causal else "both ways"
        extras = [f"window {self.window}"] * bool(self.window) + [f"softcap {self.softcap}"] * bool(self.softcap)
        extras += (
            ["sinks"] * self.sinks
            + ["dropout"] * self.dropout
            + ["paged"] * self.pages
            + ["with backward"] * self.backward
        )
        mask = f"{self.documents} documents to {self.longest}" if self.mask == "documents" else self.mask
        sizes = f"{self.rows} x {self.queries} to {self.keys}, heads {self.heads}/{self.kv_heads} of {self.head_dim}"
        sizes += f", values of {self.value_dim}" if self.value_dim != self.head_dim else ""
        return ", ".join([f"{self.dtype} {self.device}", sizes, kind, f"mask: {mask}", *extras])


def call_of(inputs: Inputs) -> Call:
    """The call that `inputs` are."""
    query, key, value = inputs.tensors
    plan = inputs.plan
    batch, heads, queries, head_dim = query.shape
    layout = plan.layout
    cut = isinstance(layout, Documents)
    count = layout.count if isinstance(layout, Documents) else batch
    longest = max(layout.longest_query, layout.longest_key) if isinstance(layout, Documents) else key.shape[2]
    cuda = query.device.type == "cuda"
    return Call(
        device=query.device.type,
        capability=_capability(query.device) if cuda else 0,
        triton=use_triton(query, inputs.with_triton),
        dtype=str(query.dtype).removeprefix("torch."),
        heads=heads,
        kv_heads=key.shape[1],
        head_dim=head_dim,
        value_dim=value.shape[3],
        rows=power_of_two(batch),
        queries=power_of_two(queries),
        keys=power_of_two(key.shape[2]),
        documents=power_of_two(count),
        longest=power_of_two(longest),
        mask="free" if plan.free else "documents" if cut else str(layout),
        causal=plan.pattern.causal,
        window=plan.pattern.window,
        softcap=inputs.softcap,
        sinks=inputs.sinks is not None,
        dropout=inputs.dropout > 0,
        backward=inputs.backward,
        pages=inputs.pages is not None,
        overflows=overflows(batch * queries, count, heads=heads, head_dim=head_dim),
        pays=cut and not plan.free and not cuda and _pays(inputs),
    )


def overflows(tokens: int, documents: int, *, heads: int, head_dim: int) -> bool:
    """Whether FlashAttention-2's varlen backward indexes past int32: (tokens + 128 documents) x heads x width."""
    return (tokens + 128 * documents) * heads * -(-head_dim // 32) * 32 >= INT32


def _pays(inputs: Inputs) -> bool:
    """Whether the scores that documents spare outweigh a call for each of them, on a CPU."""
    batch, heads, length, _ = inputs.query.shape
    dense = batch * length * inputs.key.shape[2]
    if heads * dense <= A_CALL * inputs.documents.count:
        return False
    causal, window = inputs.plan.pattern.causal, inputs.plan.pattern.window
    queries, keys = inputs.documents.lengths
    # one that is longer than the window is computed whole, under a mask of its own
    halves = [causal and (window is None or k <= window) for k in keys]
    ours = sum(q * k // (2 if half else 1) for q, k, half in zip(queries, keys, halves, strict=True))
    return heads * (dense - ours) > A_CALL * len(queries)


def _capability(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return major * 10 + minor


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One way to compute attention. `refusal` says in words why not, or None; `run` gives [B, Q, H, E]."""

    name: str
    refusal: Callable[[Call], str | None]
    run: Callable[[Inputs], Tensor]


def needs_documents(call: Call) -> str | None:
    """The refusal of kernels without masks."""
    return None if call.mask in {"free", "documents"} else f"needs documents, there is {call.mask}"


def first(*reasons: str | None) -> str | None:
    """The first reason that there is."""
    return next((reason for reason in reasons if reason), None)


def flat(x_BHTD: Tensor) -> Tensor:
    """[B, H, T, D] as [B T, H, D]: a view where the projections laid heads last, as they do."""
    return x_BHTD.transpose(1, 2).flatten(0, 1)


def repeated(x_BGKD: Tensor, heads: int) -> Tensor:
    """Keys or values for each head of queries."""
    groups = heads // x_BGKD.shape[1]
    return x_BGKD if groups == 1 else x_BGKD.repeat_interleave(groups, 1)
